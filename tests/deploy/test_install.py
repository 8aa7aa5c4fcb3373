"""The chart installed by Helm: a whole job, and what an upgrade keeps."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antinfer.spec.canonical import document_json
from antinfer.spec.schema import JobSpec
from tests.deploy.charts import CHART, Object, helm, needs_helm
from tests.integration.jobs import Scoring, assert_proven, command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import SECRETS
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import Object as Stored
from tests.k8s.double.objects import name_of
from tests.k8s.jobs import ENV
from tests.k8s.submitted import is_complete, mine, pods, wait

pytestmark = needs_helm


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


def values_of(folder: Path, **scoring: Any) -> tuple[Scoring, JobSpec, Object]:
    made = Scoring(folder, shards=8, **scoring)
    spec = made.make(name="score", workers={"max": 2})
    file = json.loads(document_json(spec))
    del file["base_dir"]
    given = {"image": {"repository": "antinfer", "tag": "1"}, "job": {"file": file}}
    return made, spec, {**given, "code": {"files": {"steps.py": (folder / "steps.py").read_text()}}}


def in_cluster(cluster: Cluster, folder: Path, verb: str, given: Object | None = None) -> subprocess.CompletedProcess[str]:
    chart = [] if given is None else [str(CHART)]
    done = helm(verb, "score", *chart, "--kubeconfig", str(cluster.kubeconfig(folder / "kubeconfig")), given=given)
    assert done.returncode == 0, done.stderr
    return done


def secret_of(cluster: Cluster) -> Stored:
    (found,) = [each for each in cluster.store.each(SECRETS) if name_of(each).startswith("antinfer-")]
    return found


def test_a_job_runs_to_its_end_and_goes_with_its_release(cluster: Cluster, tmp_path: Path) -> None:
    scoring, spec, given = values_of(tmp_path)
    told = in_cluster(cluster, tmp_path, "install", given)
    (job,) = mine(cluster)["Job"]
    command = ("status", name_of(job), "-n", "default")
    assert f"antinfer {' '.join(command)}\n" in told.stdout
    environment = {"KUBECONFIG": str(tmp_path / "kubeconfig")}
    wait(cluster, lambda: command_line(*command, environment=environment).returncode == 0, "the master to say how far it is")
    wait(cluster, lambda: is_complete(cluster), "the end of the job")
    scoring.assert_right(tmp_path / "out")
    assert_proven(spec)
    for verb in ("cancel", "resume"):
        refused = command_line(verb, *command[1:], environment=environment)
        assert refused.returncode == 2 and "was not made by `antinfer submit`" in refused.stderr
    assert mine(cluster)["Job"]
    in_cluster(cluster, tmp_path, "uninstall")
    cluster.wait(lambda: not mine(cluster) and not pods(cluster, "master") and not pods(cluster, "worker"), "everything to go")


@pytest.mark.slow
def test_a_job_is_changed_by_installing_it_again_and_goes_on_from_its_output(cluster: Cluster, tmp_path: Path) -> None:
    scoring, spec, given = values_of(tmp_path, pause_s=0.005)
    # Workers whose master has gone before them use all of their time.
    given["workers"] = {"graceSeconds": 6}
    in_cluster(cluster, tmp_path, "install", given)
    wait(cluster, lambda: list((tmp_path / "out").glob("part-*")), "a part")
    before, job = secret_of(cluster), name_of(secret_of(cluster))
    in_cluster(cluster, tmp_path, "upgrade", given)
    assert secret_of(cluster)["data"] == before["data"]
    changed = {**given, "workers": {"graceSeconds": 7}}
    done = helm("upgrade", "score", str(CHART), "--kubeconfig", str(tmp_path / "kubeconfig"), given=changed)
    assert done.returncode != 0
    assert f"job {job} is there" in done.stderr and "helm uninstall score" in done.stderr
    in_cluster(cluster, tmp_path, "uninstall")
    cluster.wait(lambda: not mine(cluster) and not pods(cluster, "worker"), "everything to go")
    parts = set((tmp_path / "out").glob("part-*"))
    in_cluster(cluster, tmp_path, "install", changed)
    wait(cluster, lambda: is_complete(cluster), "the end of the job")
    scoring.assert_right(tmp_path / "out")
    assert_proven(spec)
    assert parts <= set((tmp_path / "out").glob("part-*")), "nothing was done a second time"


def test_an_upgrade_keeps_what_valkey_and_the_master_know_each_other_by(tmp_path: Path) -> None:
    _, _, given = values_of(tmp_path)
    given["valkey"] = {"enabled": True}
    with Cluster() as cluster:  # without nodes nothing starts

        def ours() -> dict[str, Any]:
            return {name: each["data"] for each in cluster.store.each(SECRETS) if (name := name_of(each)).startswith("antinfer-")}

        in_cluster(cluster, tmp_path, "install", given)
        before = ours()
        assert [{"server.key", "password"} <= each.keys() for _, each in sorted(before.items())] == [False, True]
        in_cluster(cluster, tmp_path, "upgrade", given)
        assert ours() == before


def test_each_installation_has_secrets_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    _, _, given = values_of(tmp_path)
    contents = []
    for _ in range(2):
        in_cluster(cluster, tmp_path, "install", given)
        contents.append(secret_of(cluster)["data"])
        in_cluster(cluster, tmp_path, "uninstall")
        cluster.wait(lambda: not mine(cluster), "everything to go")
    assert all(contents[0][key] != contents[1][key] for key in contents[0])

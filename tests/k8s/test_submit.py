"""``antinfer submit``: what it creates, and whole jobs whose master is a pod as well."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from antinfer.errors import UsageError
from antinfer.launchers.kubernetes.submission import Submission, objects
from antinfer.spec.canonical import to_yaml
from antinfer.spec.schema import JobSpec
from tests.integration.jobs import Scoring, assert_proven, command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import PODS
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import Object, condition_of, dig, name_of
from tests.k8s.jobs import ENV
from tests.k8s.scenes import log_of
from tests.k8s.talk import JOBS, Talk

COLLECTIONS = {
    "Job": JOBS,
    "ServiceAccount": "/api/v1/namespaces/default/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings",
    "ConfigMap": "/api/v1/namespaces/default/configmaps",
    "Secret": "/api/v1/namespaces/default/secrets",
    "Service": "/api/v1/namespaces/default/services",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
}
KINDS = [*COLLECTIONS, "NetworkPolicy"]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


def write_job(folder: Path, **changes: Any) -> tuple[Scoring, JobSpec]:
    scoring = Scoring(folder, shards=8, pause_s=0.001)
    spec = scoring.make(name="score", **{"workers": {"max": 2}, **changes})
    (folder / "job.yaml").write_text(to_yaml(spec))
    return scoring, spec


def submit(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kubeconfig = cluster.kubeconfig(folder / "kubeconfig")
    return command_line(
        "submit", str(folder / "job.yaml"), "--image", "antinfer:1", *arguments, environment={"KUBECONFIG": str(kubeconfig)}
    )


def mine(cluster: Cluster) -> dict[str, list[Object]]:
    """Everything that belongs to a job, by kind."""
    talk = Talk(cluster.url)
    found = {kind: talk.get(path, labelSelector="antinfer.io/job")["items"] for kind, path in COLLECTIONS.items()}
    return {kind: items for kind, items in found.items() if items}


def pods(cluster: Cluster, component: str) -> list[Object]:
    return [pod for pod in cluster.store.each(PODS) if pod["metadata"]["labels"].get("app.kubernetes.io/component") == component]


def what(**changes: Any) -> Submission:
    given: dict[str, Any] = {"job": "0123456789abcdef", "title": "Score all!", "document": "{}", "code": {"steps.py": b"pass"}}
    return Submission(**{**given, "image": "i:1", "token": "tell-nobody", **changes})


def wait(cluster: Cluster, condition: Callable[[], object], why: str) -> None:
    """Wait, and say what the master said when it is in vain."""
    until = time.monotonic() + 40
    while not condition():
        said = [log_of(cluster, name_of(pod), "master") for pod in pods(cluster, "master")]
        assert time.monotonic() < until, f"not in time: {why}\n{said}"
        time.sleep(0.05)


def is_complete(cluster: Cluster) -> bool:
    (job,) = Talk(cluster.url).get(JOBS)["items"]
    failed = condition_of(job, "Failed")
    assert failed is None, (failed, [log_of(cluster, name_of(pod), "master") for pod in pods(cluster, "master")])
    return dig(condition_of(job, "Complete"), "status") == "True"


def test_a_dry_run_prints_every_object_and_creates_nothing(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    done = submit(cluster, tmp_path, "--launcher", "kubernetes", "--dry-run", "-o", "yaml", "--store", "rediss://:pw@redis:6379/0")
    assert done.returncode == 0, done.stderr
    printed = list(yaml.safe_load_all(done.stdout))
    assert sorted(each["kind"] for each in printed) == sorted(KINDS)
    secret = next(each for each in printed if each["kind"] == "Secret")
    assert secret["stringData"]["store-url"] == "rediss://:pw@redis:6379/0"
    others = [yaml.safe_dump(each) for each in printed if each is not secret]
    assert not any("pw@redis" in text or secret["stringData"]["token"] in text for text in others)
    assert not mine(cluster)
    for each in printed:
        Talk(cluster.url).create(COLLECTIONS[each["kind"]], each, dryRun="All", fieldValidation="Strict")


def test_a_job_runs_to_its_end_and_goes_with_all_that_belongs_to_it(cluster: Cluster, tmp_path: Path) -> None:
    scoring, spec = write_job(tmp_path)
    done = submit(cluster, tmp_path)
    assert done.returncode == 0, done.stderr
    shutil.move(tmp_path / "steps.py", tmp_path / "gone.py")  # the pods have their own
    assert sorted(mine(cluster)) == sorted(COLLECTIONS)
    wait(cluster, lambda: pods(cluster, "worker"), "workers")
    (job,) = mine(cluster)["Job"]
    assert pods(cluster, "worker")[0]["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    wait(cluster, lambda: is_complete(cluster), "the end of the job")
    scoring.assert_right(Path(spec.sink.path))
    assert_proven(spec)
    again = submit(cluster, tmp_path)
    assert again.returncode == 2
    assert "was submitted before" in again.stderr
    Talk(cluster.url).delete(f"{JOBS}/{name_of(job)}", {"propagationPolicy": "Background"})
    cluster.wait(lambda: not mine(cluster) and not pods(cluster, "master"), "everything to go")


@pytest.mark.slow
def test_a_master_that_dies_is_followed_by_another_that_keeps_the_workers(tmp_path: Path) -> None:
    # A mounted folder is another path in each pod of the double, and the dead master's is gone: workers have the code in their image.
    env = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}{os.pathsep}{tmp_path}"}
    scoring, spec = write_job(tmp_path)
    slower = spec.model_dump(mode="json")
    slower["pipeline"][1]["args"]["pause_s"] = 0.005
    (tmp_path / "job.yaml").write_text(to_yaml(JobSpec.model_validate(slower)))
    with Cluster([Node("n1"), Node("n2")], env=env) as cluster:
        assert submit(cluster, tmp_path).returncode == 0
        wait(cluster, lambda: list(Path(spec.sink.path).glob("part-*")), "a part")
        (first,) = pods(cluster, "master")
        before = {name_of(pod) for pod in pods(cluster, "worker")}
        cluster.oom_kill(name_of(first), "master")
        wait(cluster, lambda: len(pods(cluster, "master")) == 2, "another master")
        seen: set[str] = set()
        wait(cluster, lambda: seen.update(map(name_of, pods(cluster, "worker"))) or is_complete(cluster), "the end of the job")
        scoring.assert_right(Path(spec.sink.path))
        assert seen == before, "workers that live are kept"


def test_a_namespace_that_is_not_there_is_named(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    done = submit(cluster, tmp_path, "--namespace", "nowhere")
    assert done.returncode == 2
    assert "there is no namespace nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_that_cannot_be_created_whole_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    cluster.inject("create", "networkpolicies", status=403, message="networkpolicies is forbidden: not you")
    done = submit(cluster, tmp_path)
    assert done.returncode == 2
    assert "NetworkPolicy" in done.stderr and "not you" in done.stderr
    cluster.wait(lambda: not mine(cluster), "the rest to go")


def test_user_code_that_is_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match=r"a config map holds 1,000,000; the largest file is large\.py"):
        objects(what(code={"small.py": b"1", "large.py": b"#" * 1_000_000}))


def test_user_code_from_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError, match="outside of the folder of the job file"):
        objects(what(code={"../steps.py": b"1"}))


def test_the_master_may_do_nothing_but_look_after_pods_and_workers_nothing_at_all() -> None:
    made = {each["kind"]: each for each in objects(what())}
    assert made["Role"]["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete", "get", "list", "watch"]}]
    spec = made["Job"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in spec["containers"])


def test_what_users_say_about_pods_is_laid_over_ours() -> None:
    spec = {"containers": [{"name": "master", "env": [{"name": "A", "value": "b"}]}], "priorityClassName": "high"}
    made = objects(what(master={"spec": spec, "metadata": {"labels": {"team": "x", "app.kubernetes.io/component": "other"}}}))
    pod = made[0]["spec"]["template"]
    assert pod["spec"]["priorityClassName"] == "high"
    assert {"HOME", "POD_IP", "POD_NAME", "A"} == {each["name"] for each in pod["spec"]["containers"][0]["env"]}
    assert pod["metadata"]["labels"] | {"app.kubernetes.io/component": "master", "team": "x"} == pod["metadata"]["labels"]

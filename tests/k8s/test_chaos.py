"""``antinfer chaos --launcher kubernetes``: whole jobs on the double whose pods are deleted under them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from antinfer.core.causes import Cause
from antinfer.core.scaling import exits
from antinfer.errors import OutputError
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.packing import SubmitOptions, packed
from antinfer.master.jobfile import job_id
from antinfer.storage.jobs import open_output
from antinfer.storage.place import open_place
from antinfer.testing.chaos import load_plan
from antinfer.testing.chaos.kubernetes import stage as staging
from antinfer.testing.chaos.kubernetes.logs import PodLogs
from antinfer.testing.chaos.kubernetes.possible import RIGHTS
from tests.integration.jobs import ROOT, command_line, read_report
from tests.integration.objectstores import client_of, object_store
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import name_of
from tests.k8s.jobs import ENV
from tests.k8s.submitted import mine, pods, wait, write_job
from tests.k8s.talk import Talk

PLAN = """
workers: 2
seconds: 10s
at_least: 4
faults:
  - {kill: worker, at: 15%}
  - {term: worker, grace: 4s, at: 30%}
  - {kill: master, at: 45%}
  - {term: master, grace: 2s, at: 65%}
  - {kill: store, at: 70%, launcher: local}
"""
ONE_KILL = "{workers: 2, seconds: 4s, faults: [{kill: worker, at: 20%}]}"
MAIN = "import sys; from antinfer.cli.app import main; sys.exit(main())"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    # A mounted folder is another path in each pod of the double, and a dead master's is gone: workers have the code in their image.
    env = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}{os.pathsep}{tmp_path}"}
    with Cluster([Node("n1"), Node("n2")], env=env) as cluster:
        yield cluster


def words(cluster: Cluster, folder: Path, plan: str, *more: str, token: str | None = None) -> list[str]:
    """The command line; `plan` is the text of one, or the name of one that comes along."""
    if ":" in plan:
        (folder / "plan.yaml").write_text(plan)
        plan = str(folder / "plan.yaml")
    kubeconfig = cluster.kubeconfig(folder / "kubeconfig", token=token)
    given = ["--plan", plan, "--output", str(folder / "report"), "--kubeconfig", str(kubeconfig)]
    return ["chaos", str(folder / "job.yaml"), "--launcher", "kubernetes", "--image", "antinfer:1", *given, *more]


@contextmanager
def begun(folder: Path, given: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command for the time of the block; what it says goes to the file `said`."""
    with (folder / "said").open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, *given], stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def refused(cluster: Cluster, folder: Path, *more: str, plan: str = ONE_KILL, code: int = 2, token: str | None = None) -> str:
    """Run it, to no avail; return what it said. Nothing may be left of it."""
    done = command_line(*words(cluster, folder, plan, *more, token=token))
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert_nothing_left(cluster, folder)
    return done.stderr


def assert_nothing_left(cluster: Cluster, folder: Path) -> None:
    assert not mine(cluster) and not pods(cluster, "master") and not pods(cluster, "worker")
    assert not list(folder.glob("out*")), "the job's own output was touched, or another one is left"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_job_comes_through_whole_when_its_pods_are_deleted(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    scoring, _ = write_job(tmp_path, pause_s=0.0)
    done = command_line(*words(cluster, tmp_path, PLAN, "--seed", str(seed), "--json", "--keep"))
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (report["verdict"], report["rows"], report["rows_lost"], report["rows_doubled"]) == ("whole", scoring.rows, 0, 0)
    faults = {f"{fault['kind']} {fault['target']}": fault for fault in report["faults"]}
    assert list(faults) == ["kill worker", "term worker", "kill master", "term master"]
    for fault in faults.values():
        assert fault["proof"]["uid"] and fault["proof"]["gone_s"] >= 0 and fault["recovered_s"] is not None, fault
    assert faults["term worker"]["proof"]["exit_code"] == exits.TAKEN_AWAY
    assert report["rows_recomputed"] > 0
    logs = [path.name for path in (tmp_path / "report" / "disturbed.logs").iterdir()]
    assert len([name for name in logs if name.startswith("antinfer-")]) == 3, "one of each master"
    assert set(logs) >= {f"{faults[fault]['proof']['pod']}.log" for fault in faults}, "dead pods have theirs too"
    assert not mine(cluster) and not pods(cluster, "worker")
    assert not (tmp_path / "out").exists(), "the job's own output was touched"
    (disturbed,) = tmp_path.glob("out-chaos-*-disturbed")
    scoring.assert_right(disturbed)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("plan", ["spot", "rolling"])
def test_ready_made_plans_are_played(cluster: Cluster, tmp_path: Path, seed: int, plan: str) -> None:
    write_job(tmp_path, pause_s=0.0)
    done = command_line(*words(cluster, tmp_path, plan, "--seed", str(seed), "--json"), seconds=500)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["verdict"], report["rows_lost"], report["rows_doubled"]) == ("whole", 0, 0)
    assert report["faults_fired"] >= load_plan(plan).at_least
    assert_nothing_left(cluster, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_hundred_preemptions_cost_neither_a_row_nor_a_budget(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    scoring, _ = write_job(tmp_path, pause_s=0.0)
    plan = """
    workers: 4
    seconds: 120s
    at_least: 100
    faults: [{kill: worker, every: 2s}, {term: worker, grace: 5s, every: 2s}]
    """
    done = command_line(*words(cluster, tmp_path, plan, "--seed", str(seed), "--json", "--keep"), seconds=800)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["verdict"], report["rows_lost"], report["rows_doubled"]) == ("whole", 0, 0)
    assert report["faults_fired"] >= 100
    (disturbed,) = tmp_path.glob("out-chaos-*-disturbed")
    scoring.assert_right(disturbed)
    causes = read_report(disturbed)["causes"]
    print(report["faults_fired"], "preemptions:", causes)
    assert causes.pop("preempted") >= 100
    assert all(Cause(cause).is_blameless for cause in causes.keys() - {"bad_row"}), causes


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_what_cannot_be_counted_in_a_bucket_is_said_to_be_unknown(cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("boto3")
    with object_store("moto", "outputs") as storage:
        write_job(tmp_path, pause_s=0.0, sink={"path": "s3://outputs/mine/out/", "options": {"storage": storage}})
        done = command_line(*words(cluster, tmp_path, ONE_KILL))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "whole: 0 rows lost, 0 doubled" in done.stdout
        assert "recomputed    unknown" in done.stdout, done.stdout
        assert json.loads((tmp_path / "report" / "report.json").read_text())["rows_recomputed"] is None
        client = client_of(storage)
        assert not [each["Key"] for each in client.list_objects_v2(Bucket="outputs", Prefix="mine").get("Contents", [])]
        assert not client.list_multipart_uploads(Bucket="outputs").get("Uploads")
    assert_nothing_left(cluster, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_interrupted(cluster: Cluster, tmp_path: Path, number: signal.Signals) -> None:
    write_job(tmp_path, pause_s=0.0)
    given = words(cluster, tmp_path, "{workers: 2, seconds: 300s, faults: [{kill: worker, every: 1s}]}")
    with begun(tmp_path, given) as process:
        wait(cluster, lambda: list(tmp_path.glob("out-chaos-*-undisturbed/part-*")), "a part")
        process.send_signal(number)
        assert process.wait(60) == 130, (tmp_path / "said").read_text()
    assert "the job's own output was not touched" in (tmp_path / "said").read_text()
    assert_nothing_left(cluster, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_that_dies_of_no_fault_of_the_plan_is_a_problem(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path, pause_s=0.0)
    with begun(tmp_path, words(cluster, tmp_path, "{workers: 2, seconds: 6s, faults: [{kill: worker, at: 60%}]}")) as process:
        wait(cluster, lambda: list(tmp_path.glob("out-chaos-*-disturbed/part-*")), "a part")
        victim = next(name_of(pod) for pod in pods(cluster, "worker") if pod["status"]["phase"] == "Running")
        cluster.oom_kill(victim, "worker")
        assert process.wait(90) == 4, (tmp_path / "said").read_text()
    assert f"PROBLEM {victim} ended by itself: exit code 137, OOMKilled" in (tmp_path / "said").read_text()
    assert_nothing_left(cluster, tmp_path)


@pytest.mark.slow
def test_a_job_that_fails_says_why_and_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    text = refused(cluster, tmp_path, "--set", "pipeline.0.map_batches=steps:missing", code=1)
    assert "the job failed in the cluster" in text and "missing" in text


def test_a_plan_that_needs_hands_on_processes_is_refused_with_what_is_possible(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    said = refused(cluster, tmp_path, plan="dark-day")
    assert "plan dark-day cannot be played on Kubernetes" in said and "kill and term, of worker and master" in said
    for rule in ("stop worker", "kill store", "partition worker", "fill disk", "kill commit.staged", "store: server"):
        assert rule in said
    assert "term worker" not in said
    assert not cluster.calls.of("create", "jobs")


def test_what_the_command_needs_is_said(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    assert "no Kubernetes cluster is known here" in refused(cluster, tmp_path, "--context", "other")
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(cluster.kubeconfig(tmp_path / "kubeconfig").read_text().replace(cluster.url, "http://127.0.0.1:9"))
    assert "cannot be reached" in refused(cluster, tmp_path, "--kubeconfig", str(nowhere), code=1)
    assert "the pods need an image" in refused(cluster, tmp_path, "--image", "")
    assert "for --launcher kubernetes" in refused(cluster, tmp_path, "--launcher", "local")
    (tmp_path / "file").touch()
    said = refused(cluster, tmp_path, "--set", f"sink.path={tmp_path / 'file' / 'out'}", code=1)
    assert "the outputs have to be reached from here as well as from the pods" in said


def test_rights_that_are_missing_are_named_before_anything_is_begun(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    talk, rbac = Talk(cluster.url), "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    talk.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "player"}})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "player"}
    subjects = [{"kind": "ServiceAccount", "name": "player", "namespace": "default"}]
    talk.create(f"{rbac}/rolebindings", {"metadata": {"name": "player"}, "roleRef": reference, "subjects": subjects})
    given = [right for right in RIGHTS if right.verb != "delete"]
    rules = [{"apiGroups": [right.group], "resources": [right.resource], "verbs": [right.verb]} for right in given]
    talk.create(f"{rbac}/roles", {"metadata": {"name": "player"}, "rules": rules})
    said = refused(cluster, tmp_path, token=cluster.service_account_token("default", "player"))
    assert "missing rights in namespace default: delete jobs, delete pods" in said
    assert '{apiGroups: [""], resources: ["pods"], verbs: ["delete"]}' in said


@pytest.mark.slow
def test_an_output_that_is_another_place_in_the_pods_is_noticed(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, spec = write_job(tmp_path, pause_s=0.1)
    monkeypatch.setattr(staging, "_VISIBLE_S", 0.5)
    api = Api.connect(str(cluster.kubeconfig(tmp_path / "kubeconfig")))
    what = packed(spec, job_id(open_output(spec).uri), SubmitOptions("antinfer:1"))
    elsewhere = open_place(str(tmp_path / "elsewhere"))
    stage = staging.KubernetesStage(api, what, elsewhere, PodLogs(api, "default", tmp_path), print)
    try:
        stage.start()
        with pytest.raises(OutputError, match="nothing of that is seen here"):
            wait(cluster, lambda: stage.ask() is None and False, "the error")
    finally:
        stage.close()
    assert not mine(cluster) and not pods(cluster, "worker")

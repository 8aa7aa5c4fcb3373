"""What is asked of a submitted job from outside: how it is, to shrink, to end, to go on. All of it through the API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest

from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.facts import GIVE_BACK
from antinfer.launchers.kubernetes.jobs import Jobs
from antinfer.storage import layout
from tests.integration.jobs import assert_proven, command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import condition_of, name_of
from tests.k8s.jobs import ENV
from tests.k8s.rights import limited
from tests.k8s.submitted import COLLECTIONS, alive, crawl, is_complete, mine, pods, submit, wait, write_job
from tests.k8s.talk import JOBS, Talk


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


class Outside:
    """Somebody with a kubeconfig and the name of a job."""

    def __init__(self, cluster: Cluster, folder: Path, token: str | None = None) -> None:
        self.kubeconfig = str(cluster.kubeconfig(folder / "kubeconfig-outside", token=token))
        self.name = name_of(mine(cluster)["Job"][0]) if "Job" in mine(cluster) else "antinfer-nothing-000000"

    def say(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        return command_line(command, self.name, *more, "--kubeconfig", self.kubeconfig)

    def told(self, command: str, *more: str) -> str:
        done = self.say(command, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, command: str, *more: str, code: int = 2) -> str:
        done = self.say(command, *more)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stderr


def start(cluster: Cluster, folder: Path, *, shards: int = 8, pause_s: float = 0.02, **changes: Any) -> tuple[Any, Any, Outside]:
    scoring, spec = write_job(folder, shards=shards, pause_s=pause_s, **changes)
    done = submit(cluster, folder)
    assert done.returncode == 0, done.stderr
    return scoring, spec, Outside(cluster, folder)


@pytest.mark.slow
def test_a_job_is_asked_how_it_is_cancelled_and_resumed(cluster: Cluster, tmp_path: Path) -> None:
    scoring, spec = write_job(tmp_path)
    crawl(tmp_path, until=tmp_path / "go on")
    # Small batches: a worker that ends waits for the one under way.
    assert submit(cluster, tmp_path, "--set", "pipeline.1.batch_size=4").returncode == 0
    outside = Outside(cluster, tmp_path)
    wait(cluster, lambda: list(Path(spec.sink.path).glob("part-*")), "a part")
    status = json.loads(outside.told("status", "--json"))
    assert status["phase"] == "running" and status["rows_committed"] > 0
    assert cluster.calls.of("get", "pods/portforward") >= 1
    assert "the output stays" in outside.told("cancel")
    assert sorted(mine(cluster)) == ["ConfigMap"] and not pods(cluster, "master") and not pods(cluster, "worker")
    assert "was cancelled" in outside.refused("status")
    assert not Path(spec.sink.path, "_SUCCESS").exists(), "there is something to go on with"

    (tmp_path / "go on").touch()
    assert "goes on from its output" in outside.told("resume")
    assert sorted(mine(cluster)) == sorted(COLLECTIONS)
    wait(cluster, lambda: is_complete(cluster), "the end of the job")
    scoring.assert_right(Path(spec.sink.path))
    assert_proven(spec)
    epochs = [int(path.name) for path in Path(spec.sink.path, layout.folder(layout.EPOCHS)).iterdir()]
    assert max(epochs) == 2, "the next master's"
    assert json.loads(outside.told("status", "--json"))["phase"] == "done"
    assert "nothing to go on with" in outside.refused("resume")
    outside.told("cancel", "--forget")
    assert not mine(cluster)
    assert "there is no job" in outside.refused("status")


@pytest.mark.slow
def test_workers_are_given_back_and_stay_away_until_told_otherwise(cluster: Cluster, tmp_path: Path) -> None:
    _, _, outside = start(cluster, tmp_path, shards=400, pause_s=0.1, workers={"min": 1, "max": 3})
    wait(cluster, lambda: len(workers_of(outside)) == 3, "three workers")
    said = outside.told("drain", "2")
    leaving = said.splitlines()[0].removeprefix("leaving: ").split(", ")
    assert len(leaving) == 2 and "at most 1 workers" in said
    wait(cluster, lambda: {name_of(pod) for pod in alive(cluster)}.isdisjoint(leaving), "two to leave")
    (master,) = pods(cluster, "master")
    cluster.oom_kill(name_of(master), "master")
    wait(cluster, lambda: len(pods(cluster, "master")) == 2 and len(workers_of(outside)) == 1, "the next master to go on with one")
    assert len(alive(cluster)) == 1, "the next master knows of it"
    outside.told("drain", "--release")
    wait(cluster, lambda: len(alive(cluster)) == 3, "three workers again")


@pytest.mark.slow
def test_the_object_of_a_job_says_how_many_workers_are_wanted_back(cluster: Cluster, tmp_path: Path) -> None:
    _, _, outside = start(cluster, tmp_path, shards=400, pause_s=0.1, workers={"min": 1, "max": 3})
    wait(cluster, lambda: len(workers_of(outside)) == 3, "three workers")
    job = f"{JOBS}/{outside.name}"
    Talk(cluster.url).patch(job, {"metadata": {"annotations": {GIVE_BACK: "2"}}})
    wait(cluster, lambda: len(alive(cluster)) == 1, "two to leave")
    Talk(cluster.url).patch(job, {"metadata": {"annotations": {GIVE_BACK: "1"}}})
    wait(cluster, lambda: len(alive(cluster)) == 2, "one to come again")
    Talk(cluster.url).patch(job, {"metadata": {"annotations": {GIVE_BACK: None}}})
    wait(cluster, lambda: len(alive(cluster)) == 3, "the other to come again")
    worker = name_of(alive(cluster)[0])
    assert worker in outside.told("drain", "--worker", worker)
    wait(cluster, lambda: worker not in {name_of(pod) for pod in alive(cluster)} and len(alive(cluster)) == 3, "another in its place")
    assert "no worker nobody" in outside.refused("drain", "--worker", "nobody")


def workers_of(outside: Outside) -> list[dict[str, Any]]:
    done = outside.say("status", "--json")
    return json.loads(done.stdout)["workers"] if done.returncode == 0 else []


def test_what_is_wrong_is_said(cluster: Cluster, tmp_path: Path) -> None:
    outside = Outside(cluster, tmp_path)
    assert "there is no job antinfer-nothing-000000 in namespace default" in outside.refused("status")
    assert "there is no namespace nowhere" in outside.refused("status", "--namespace", "nowhere")
    for command in ("drain", "cancel", "logs", "resume"):
        assert "there is no job" in outside.refused(command, *(["1"] if command == "drain" else []))
    assert "Give a number of workers" in outside.refused("drain")
    nowhere = tmp_path / "nowhere"
    nowhere.write_text(Path(outside.kubeconfig).read_text().replace(cluster.url, "http://127.0.0.1:9"))
    done = command_line("status", outside.name, "--kubeconfig", str(nowhere))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the API server at http://127.0.0.1:9 cannot be reached" in done.stderr and "--context" in done.stderr
    done = command_line("status", outside.name, "--kubeconfig", outside.kubeconfig, "--context", "other")
    assert done.returncode == 2 and "no Kubernetes cluster is known here" in done.stderr
    assert "is about" in command_line("cancel", "127.0.0.1:9", "--forget").stderr


def test_rights_that_are_missing_are_named_one_after_the_other(cluster: Cluster, tmp_path: Path) -> None:
    start(cluster, tmp_path, pause_s=0.1)
    wait(cluster, lambda: alive(cluster), "a worker")
    outside = Outside(cluster, tmp_path, limited(cluster, []))
    rules: list[dict[str, Any]] = []
    for group, resource, verb in (
        ("batch", "jobs", "get"),
        ("", "secrets", "get"),
        ("", "pods", "list"),
        ("", "pods/portforward", "get"),
        ("", "pods/portforward", "create"),
    ):
        said = outside.refused("status", code=1)
        assert f'the rule {{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}} in a Role in namespace default' in said
        rules.append({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
        Talk(cluster.url).patch(f"{COLLECTIONS['Role']}/limited", {"rules": rules})
    assert "running" in outside.told("status")


def test_a_job_that_runs_says_what_it_says(cluster: Cluster, tmp_path: Path) -> None:
    _, _, outside = start(cluster, tmp_path, pause_s=0.1)
    wait(cluster, lambda: alive(cluster), "a worker")
    worker = name_of(alive(cluster)[0])
    for name, who, more in ((name_of(pods(cluster, "master")[0]), "master", []), (worker, "worker", ["--worker", worker])):
        with cluster.kubelets.run_of("default", name).log(who, 0).open("a") as log:
            log.write(f"first of the {who}\nlast of the {who}\n")
        assert f"first of the {who}\n" in outside.told("logs", *more)
        assert outside.told("logs", "--tail", "1", *more) == f"last of the {who}\n"
    # A pod of the cluster goes to the address of the service.
    forwarded = cluster.calls.of("create", "pods/portforward") + cluster.calls.of("get", "pods/portforward")
    configuration = kubernetes.client.Configuration(host=cluster.url)
    jobs = Jobs(Api(configuration, is_inside=True), "default")
    with jobs.reach(jobs.find(outside.name)) as admin:
        assert admin.status().phase == "running"
    assert cluster.calls.of("create", "pods/portforward") + cluster.calls.of("get", "pods/portforward") == forwarded
    assert "has no worker nobody" in outside.refused("logs", "--worker", "nobody")
    assert "is running" in outside.refused("resume")
    outside.told("cancel")
    assert submit(cluster, tmp_path).returncode == 0, "what was kept for resume does not stand in the way"
    assert sorted(mine(cluster)) == sorted(COLLECTIONS)


def test_a_job_that_has_failed_is_said_with_the_words_of_its_master(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    (tmp_path / "steps.py").write_text("raise RuntimeError('no model here')")
    assert submit(cluster, tmp_path).returncode == 0
    outside = Outside(cluster, tmp_path)
    wait(cluster, lambda: condition_of(mine(cluster)["Job"][0], "Failed"), "the end of the job")
    assert "no model here" in json.loads(outside.told("status", "--json"))["reason"]


def test_a_master_that_may_not_be_created_is_said_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}
    Talk(cluster.url).create("/api/v1/namespaces/default/resourcequotas", quota)
    _, _, outside = start(cluster, tmp_path)
    said = 'it has no pod: Error creating: pods "antinfer-score-'
    wait(cluster, lambda: said in outside.refused("status", code=1), "to be told")
    assert "exceeded quota: few, requested: pods=1, used: pods=0, limited: pods=0" in outside.refused("logs", code=1)
    few = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]}]
    few += [{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]}]
    limited_one = Outside(cluster, tmp_path, limited(cluster, few, "few"))
    assert "it has no pod yet" in limited_one.refused("status", code=1), "events are not theirs to see"


def test_a_master_whose_volume_is_not_there_is_said_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    mount = {"volumes": [{"name": "v", "secret": {"secretName": "nope"}}]}
    (tmp_path / "pods.yaml").write_text(json.dumps({"master": {"spec": mount}}))
    write_job(tmp_path)
    assert submit(cluster, tmp_path, "--pods", str(tmp_path / "pods.yaml")).returncode == 0
    said = 'its pod is Pending: FailedMount: MountVolume.SetUp failed for volume "v" : secret "nope" not found'
    wait(cluster, lambda: said in Outside(cluster, tmp_path).refused("status", code=1), "to be told")


def test_a_master_whose_node_has_no_network_is_said_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        cluster.break_network(name, "cni plugin not initialized")
    write_job(tmp_path)
    assert submit(cluster, tmp_path).returncode == 0
    said = "its pod is Pending: FailedCreatePodSandBox: Failed to create pod sandbox: "
    wait(cluster, lambda: said in Outside(cluster, tmp_path).refused("status", code=1), "to be told")


def test_a_master_that_does_not_run_is_said_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    cluster.images.bad["antinfer*"] = "manifest unknown"
    _, _, outside = start(cluster, tmp_path)
    wait(cluster, lambda: pods(cluster, "master"), "a pod")
    assert "no master of job" in (said := outside.refused("status", code=1)) and "its pod is Pending" in said
    assert "manifest unknown" in said

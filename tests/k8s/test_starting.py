"""The start of a job that was submitted, or submitted again: waited for, and what keeps its master from running said at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from antinfer.errors import InfraError
from antinfer.launchers.kubernetes import masterpods
from antinfer.launchers.kubernetes.api import Api
from antinfer.launchers.kubernetes.jobs import Jobs
from antinfer.launchers.kubernetes.starting import wait_for_master
from tests.integration.jobs import command_line
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import name_of
from tests.k8s.jobs import ENV
from tests.k8s.rights import limited
from tests.k8s.submitted import mine, pods, submit, wait, write_job


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster([Node("n1"), Node("n2")], env=ENV) as cluster:
        yield cluster


def test_submit_says_that_the_master_runs(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    done = submit(cluster, tmp_path, wait=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "its master runs"
    assert "waiting for its master to run" in done.stderr
    assert any(masterpods.runs(pod) for pod in pods(cluster, "master"))


def test_submit_says_with_the_words_of_the_kubelet_why_it_does_not(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    cluster.images.bad["antinfer*"] = "manifest unknown"
    done = submit(cluster, tmp_path, wait=True)
    (job,) = mine(cluster)["Job"]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"the master of job {name_of(job)} cannot start: container master: " in done.stderr
    assert 'failed to pull and unpack image "antinfer:1": manifest unknown' in done.stderr
    assert f"antinfer cancel {name_of(job)} -n default" in done.stderr
    assert "its master runs" not in done.stdout and "is submitted as job" in done.stdout


def test_resume_waits_as_submit_does(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    assert submit(cluster, tmp_path).returncode == 0
    name = name_of(mine(cluster)["Job"][0])
    where = (name, "--kubeconfig", str(tmp_path / "kubeconfig"))
    assert command_line("cancel", *where).returncode == 0
    done = command_line("resume", *where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "its master runs"

    assert command_line("cancel", *where).returncode == 0
    cluster.images.bad["antinfer*"] = "manifest unknown"
    done = command_line("resume", *where)
    assert done.returncode == 1 and "is submitted again" in done.stdout
    assert f"the master of job {name} cannot start: container master: " in done.stderr and "manifest unknown" in done.stderr

    assert command_line("cancel", *where).returncode == 0
    done = command_line("resume", *where, "--no-wait")
    assert done.returncode == 0 and "waiting for its master" not in done.stderr, done.stderr


def test_submit_does_without_what_it_may_not_see(cluster: Cluster, tmp_path: Path) -> None:
    write_job(tmp_path)
    rights = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["create", "delete", "get", "patch"]}]
    kubeconfig = cluster.kubeconfig(tmp_path / "limited", token=limited(cluster, rights))
    done = submit(cluster, tmp_path, "--kubeconfig", str(kubeconfig), wait=True)
    assert done.returncode == 0, done.stderr
    assert "whether its master runs cannot be seen" in done.stderr and 'verbs: ["list"]' in done.stderr


def test_a_master_without_a_place_is_waited_for_and_one_that_failed_is_not(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("n1", "n2"):
        cluster.taint_node(name, "full", "NoSchedule")
    write_job(tmp_path)
    (tmp_path / "steps.py").write_text("raise RuntimeError('no model here')")
    assert submit(cluster, tmp_path).returncode == 0
    jobs = Jobs(Api.connect(str(tmp_path / "kubeconfig")), "default")
    job = jobs.find(name_of(mine(cluster)["Job"][0]))
    wait(cluster, lambda: "nodes are available" in wait_for_master(jobs, job, 0.0), "the words of the scheduler")
    for name in ("n1", "n2"):
        cluster.untaint_node(name, "full")
    wait(cluster, lambda: jobs.find(job.name).phase == "failed", "the job to fail")
    with pytest.raises(InfraError, match=r"has failed: .*no model here"):
        wait_for_master(jobs, job, 10.0)

"""The pods of workers, and what users lay over them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from antinfer.errors import UsageError
from antinfer.launchers.kubernetes.manifests import worker_pod
from antinfer.launchers.kubernetes.merging import merged
from antinfer.launchers.kubernetes.rights import explain
from antinfer.launchers.kubernetes.settings import KubernetesSettings
from antinfer.launchers.pidfile import VARIABLE
from antinfer.launchers.port import WorkerOrder


def made(order: WorkerOrder | None = None, **settings: Any) -> dict[str, Any]:
    order = order or WorkerOrder("w-1", "preemptible")
    return worker_pod(KubernetesSettings(image="i:1", **settings), order, job="j", master="m:1", owner={"uid": "u"})


def test_memory_that_was_raised_is_limit_and_request_beside_what_the_template_asks_for() -> None:
    template = {"spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": 1}}}]}}
    pod = made(WorkerOrder("w-1", "preemptible", memory_bytes=2**31), template=template)
    (worker,) = pod["spec"]["containers"]
    assert worker["resources"] == {"limits": {"memory": str(2**31), "nvidia.com/gpu": 1}, "requests": {"memory": str(2**31)}}


def test_nodes_are_avoided_in_each_alternative_of_the_template() -> None:
    terms = [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}, {}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}, "podAffinity": {}}
    order = WorkerOrder("w-1", "preemptible", avoid=("n1", "n2"))
    spec = made(order, template={"spec": {"affinity": affinity}})["spec"]
    found = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    wish = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n1", "n2"]}
    assert [each["matchExpressions"][-1] for each in found] == [wish, wish]
    assert len(found[0]["matchExpressions"]) == 2 and "podAffinity" in spec["affinity"]


def test_a_class_has_the_last_word_but_for_what_identifies_a_worker() -> None:
    classes = {
        "preemptible": {"metadata": {"name": "x", "labels": {"antinfer.io/job": "other"}}, "spec": {"nodeSelector": {"pool": "spot"}}}
    }
    pod = made(template={"spec": {"nodeSelector": {"pool": "any"}, "restartPolicy": "Always"}}, classes=classes)
    assert pod["spec"]["nodeSelector"] == {"pool": "spot"}
    assert (pod["metadata"]["name"], pod["metadata"]["labels"]["antinfer.io/job"], pod["spec"]["restartPolicy"]) == ("w-1", "j", "Never")
    assert pod["metadata"]["ownerReferences"] == [{"uid": "u"}]


@pytest.mark.parametrize(
    ("template", "classes", "grace"),
    [
        ({}, {}, "25"),
        ({"spec": {"terminationGracePeriodSeconds": 15}}, {}, "10"),
        ({"spec": {"terminationGracePeriodSeconds": 15}}, {"preemptible": {"spec": {"terminationGracePeriodSeconds": 60}}}, "55"),
        ({}, {"protected": {"spec": {"terminationGracePeriodSeconds": 60}}}, "25"),
        ({"spec": {"terminationGracePeriodSeconds": None}}, {}, "25"),
        ({"spec": {"terminationGracePeriodSeconds": 0}}, {}, "1"),
    ],
    ids=["settings", "overlay", "class", "other class", "none", "at once"],
)
def test_a_worker_leaves_before_the_grace_period_that_its_pod_has_in_the_end(
    template: dict[str, Any], classes: dict[str, Any], grace: str
) -> None:
    (container,) = made(grace_s=30, template=template, classes=classes)["spec"]["containers"]
    assert container["args"][container["args"].index("--grace") + 1] == grace


OVERLAID = {
    "spec": {
        "serviceAccountName": "readers",
        "securityContext": {"runAsUser": 1_000, "fsGroup": None},
        "containers": [{"name": "worker", "image": "other:2", "securityContext": {"readOnlyRootFilesystem": False}}],
    }
}


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (("containers", 0, "image"), "i:1", "other:2"),
        (("serviceAccountName",), None, "readers"),
        (("securityContext", "runAsUser"), 65_532, 1_000),
        (("securityContext", "fsGroup"), 65_532, None),
        (("securityContext", "runAsNonRoot"), True, True),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), True, False),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), False, False),
    ],
    ids=["image", "service account", "user", "removed", "rest of the pod", "file system", "rest of the container"],
)
@pytest.mark.parametrize("layer", [{"template": OVERLAID}, {"classes": {"preemptible": OVERLAID}}], ids=["all", "class"])
def test_what_is_laid_over_a_pod_counts_and_the_rest_stays(layer: dict[str, Any], path: tuple[Any, ...], before: Any, after: Any) -> None:
    def at(found: Any) -> Any:
        for key in path:
            found = found[key] if isinstance(key, int) else found.get(key)
        return found

    assert at(made()["spec"]) == before
    assert at(made(**layer)["spec"]) == after


def test_a_worker_gets_its_own_part_of_the_secret_as_files() -> None:
    spec = made(secret="s", server_name="m.ns")["spec"]
    args = spec["containers"][0]["args"]
    assert args[args.index("--token-file") + 1] == "/etc/antinfer/secret/token"
    assert args[args.index("--tls-key") + 1] == "/etc/antinfer/secret/worker.key"
    assert args[-2:] == ["--tls-name", "m.ns"]
    (found,) = [each["secret"] for each in spec["volumes"] if "secret" in each]
    assert (found["secretName"], found["defaultMode"]) == ("s", 0o400)
    assert {each["key"] for each in found["items"]} == {"token", "ca.crt", "worker.crt", "worker.key"}


def with_worker(**content: Any) -> dict[str, Any]:
    """Return the container of a worker over which `content` was laid."""
    (container,) = made(template={"spec": {"containers": [{"name": "worker", **content}]}})["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_what_a_template_puts_before_the_worker_leaves_it_its_options() -> None:
    plain, wrapped = with_worker(), with_worker(command=["tini", "--", *with_worker()["command"]])
    assert plain["command"] == ["python", "-m", "antinfer.worker"]
    assert (wrapped["command"][:2], wrapped["args"]) == (["tini", "--"], plain["args"])
    assert with_worker(command=None).keys() == plain.keys() - {"command"}, "what is left is what the image starts"


@pytest.mark.parametrize("hook", [{"sleep": {"seconds": 5}}, {"exec": {"command": ["/leave"]}}], ids=lambda hook: next(iter(hook)))
def test_a_template_has_the_last_word_about_hooks(hook: dict[str, Any]) -> None:
    assert with_worker(lifecycle={"preStop": hook})["lifecycle"] == {"preStop": hook}
    assert with_worker(lifecycle={"postStart": hook})["lifecycle"] == {"postStart": hook, **with_worker()["lifecycle"]}
    assert "lifecycle" not in with_worker(lifecycle=None)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def run_hook(pid_file: Path | None) -> subprocess.CompletedProcess[bytes]:
    """Run the hook of a worker, whose process is told in `pid_file`."""
    env = {} if pid_file is None else {VARIABLE: str(pid_file)}
    return subprocess.run(with_worker()["lifecycle"]["preStop"]["exec"]["command"], env=env, capture_output=True, check=False, timeout=10)


def test_the_hook_signals_the_process_that_the_file_names(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{sleeper.pid}\n")
    assert run_hook(tmp_path / "pid").returncode == 0
    assert sleeper.wait(10) == -signal.SIGUSR1


@pytest.mark.parametrize("content", [None, "", "4194305\n"], ids=["no file", "not yet written", "gone"])
def test_the_hook_of_a_worker_that_is_not_there_changes_nothing(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "pid").write_text(content)
    assert run_hook(tmp_path / "pid").returncode == 0
    assert run_hook(None).returncode == 0


def test_a_template_without_the_container_of_the_worker_is_refused() -> None:
    with pytest.raises(UsageError, match="no container 'worker'"):
        made(WorkerOrder("w-1", "preemptible", memory_bytes=1), template={"spec": {"containers": None}})


def test_laying_over() -> None:
    ours = {"env": [{"name": "A", "value": "1"}], "tolerations": [{"key": "a"}], "command": ["a", "b"], "drop": {"x": 1}, "keep": 1}
    theirs = {"env": [{"name": "B"}, {"name": "A", "value": "2"}], "tolerations": [{"key": "b"}], "command": ["c"], "drop": None}
    assert merged(ours, theirs) == {
        "env": [{"name": "A", "value": "2"}, {"name": "B"}],
        "tolerations": [{"key": "a"}, {"key": "b"}],
        "command": ["c"],
        "keep": 1,
    }
    assert ours["drop"] == {"x": 1}


def test_a_refusal_that_names_no_right_stays_as_it_is() -> None:
    assert explain(403, "exceeded quota") == "exceeded quota"
    text = explain(403, 'nodes is forbidden: User "u" cannot list resource "nodes" in API group "" at the cluster scope')
    assert text.endswith(
        '(the missing right: the rule {apiGroups: [""], resources: ["nodes"], verbs: ["list"]} in a ClusterRole, bound to u)'
    )

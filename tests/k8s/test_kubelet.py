"""Containers as real processes: what they get, how they end, what the status says of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kubelet.environment import Image
from tests.k8s.double.nodes import Node
from tests.k8s.scenes import handler, history, log_of, phase, pod_of, reason, shell, state, wait_for_phase, wait_for_word
from tests.k8s.talk import CONFIGMAPS, PODS, Talk, config

EVENTS = "/api/v1/namespaces/default/events"
SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    images = {"greeter": Image(entrypoint=("sh", "-c", 'echo "$0 $WHO"'), cmd=("hello",), env={"WHO": "world"})}
    with Cluster([Node("n1")], images=images) as cluster:
        yield cluster


def hook(script: str) -> dict[str, Any]:
    return {"preStop": {"exec": {"command": ["sh", "-c", script]}}}


def reasons(talk: Talk) -> set[str]:
    """The reasons of all events of the namespace."""
    return {each["reason"] for each in talk.get(EVENTS)["items"]}


def test_a_pod_runs_and_succeeds(cluster: Cluster, talk: Talk) -> None:
    version = talk.get(PODS)["metadata"]["resourceVersion"]
    talk.create(PODS, pod_of(shell("echo hello; exit 0")))
    done = wait_for_phase(cluster, "Succeeded")

    assert state(done)["terminated"]["exitCode"] == 0 and state(done)["terminated"]["reason"] == "Completed"
    assert talk.get(f"{PODS}/p/log") == "hello\n"
    phases = []
    with talk.watch(PODS, resourceVersion=version) as events:
        for _, each in events:
            phases.append(each["status"]["phase"])
            if phases[-1] == "Succeeded":
                break
    assert list(dict.fromkeys(phases)) == ["Pending", "Running", "Succeeded"]


def test_statuses_come_sorted_by_name_and_one_failure_fails_the_pod(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("exit 0", "zebra"), shell("exit 3", "ant")))
    done = wait_for_phase(cluster, "Failed")

    assert [each["name"] for each in done["status"]["containerStatuses"]] == ["ant", "zebra"]
    assert (state(done, "ant")["terminated"]["exitCode"], state(done, "zebra")["terminated"]["exitCode"]) == (3, 0)
    assert state(done, "ant")["terminated"]["reason"] == "Error"


def test_variables_come_from_everywhere(cluster: Cluster, talk: Talk) -> None:
    talk.create(CONFIGMAPS, config("c", key="from-config"))
    talk.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"token": "from-secret"}})
    env = [
        {"name": "PLAIN", "value": "1"},
        {"name": "BUILT", "value": "$(PLAIN)-$(MISSING)-$$(PLAIN)"},
        {"name": "CONFIG", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "key"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
    ]
    script = 'echo "$BUILT $CONFIG $S_token $POD $MEMORY"; echo "$0"; test -n "$IP"'
    container = shell(script, env=env, envFrom=[{"prefix": "S_", "secretRef": {"name": "s"}}])
    container["command"].append("$(POD)/x")
    container["resources"] = {"limits": {"memory": "1Ki"}}
    talk.create(PODS, pod_of(container))

    wait_for_phase(cluster, "Succeeded")
    assert log_of(cluster) == "1-$(MISSING)-$(PLAIN) from-config from-secret p 1024\np/x\n"


def test_volumes_are_folders_to_which_paths_lead(cluster: Cluster, talk: Talk) -> None:
    talk.create(CONFIGMAPS, config("c", **{"job.yaml": "name: x"}))
    talk.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"password": "hush"}})
    volumes = [
        {"name": "config", "configMap": {"name": "c", "items": [{"key": "job.yaml", "path": "deep/job.yaml"}]}},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "mixed", "projected": {"sources": [{"configMap": {"name": "c"}}, {"serviceAccountToken": {"path": "token"}}]}},
    ]
    mounts = [
        {"name": "config", "mountPath": "/etc/job"},
        {"name": "secret", "mountPath": "/etc/job-secrets"},
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "mixed", "mountPath": "/mixed"},
    ]
    script = 'cat /etc/job/deep/job.yaml /etc/job-secrets/password; echo; echo done > $OUT; cat /scratch/out; cat "/mixed/job.yaml"; pwd'
    container = shell(script, volumeMounts=mounts, env=[{"name": "OUT", "value": "/scratch/out"}], workingDir="/scratch")
    talk.create(PODS, pod_of(container, volumes=volumes))

    wait_for_phase(cluster, "Succeeded")
    lines = log_of(cluster).splitlines()
    assert lines[:2] == ["name: xhush", "done"] and lines[2].startswith("name: x")
    assert (cluster.kubelets.run_of("default", "p").folder / "volumes" / "mixed" / "token").read_text()


def test_a_container_that_failed_leaves_its_last_words_where_it_wants_that(cluster: Cluster, talk: Talk) -> None:
    script = "seq 1 100; echo why; exit 3"
    talk.create(PODS, pod_of(shell(script, terminationMessagePolicy="FallbackToLogsOnError"), shell(script, "other")))
    ended = wait_for_phase(cluster, "Failed")
    assert state(ended)["terminated"]["message"].split() == [*map(str, range(22, 101)), "why"]
    assert "message" not in state(ended, "other")["terminated"]


def test_an_images_own_command_is_used_where_the_container_has_none(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of({"name": "main", "image": "greeter"}))
    wait_for_phase(cluster, "Succeeded")
    assert log_of(cluster) == "hello world\n"
    talk.create(PODS, pod_of({"name": "main", "image": "greeter", "args": ["bye"]}, name="q"))
    wait_for_phase(cluster, "Succeeded", "q")
    assert log_of(cluster, "q") == "bye world\n"


def test_the_pods_own_token_has_its_rights(cluster: Cluster, talk: Talk) -> None:
    script = (
        "import os, kubernetes.client as c, kubernetes.config as k\n"
        "k.load_kube_config()\n"
        "try: c.CoreV1Api().list_namespaced_pod('default')\n"
        "except c.ApiException as e: print(e.status, 'system:serviceaccount:default:default' in e.body)\n"
    )
    talk.create(PODS, pod_of({"name": "main", "image": "i", "command": ["python", "-c", script]}))
    wait_for_phase(cluster, "Succeeded")
    assert log_of(cluster) == "403 True\n"


def test_a_handler_of_sigterm_decides_on_the_exit_code(cluster: Cluster, talk: Talk) -> None:
    version = talk.create(PODS, pod_of(handler(code=7)))["metadata"]["resourceVersion"]
    wait_for_word(cluster, "ready")

    talk.delete(f"{PODS}/p")

    cluster.wait(lambda: cluster.pod("p") is None, "the pod to go")
    last = history(cluster, version)[-2]
    assert last["metadata"]["deletionTimestamp"] and last["status"]["phase"] == "Failed"
    assert state(last)["terminated"]["exitCode"] == 7


def test_a_first_process_without_a_handler_dies_with_137_after_its_grace(cluster: Cluster, talk: Talk) -> None:
    version = talk.create(PODS, pod_of(shell("echo ready; exec sleep 1000")))["metadata"]["resourceVersion"]
    wait_for_word(cluster, "ready")

    talk.delete(f"{PODS}/p", gracePeriodSeconds=1)

    cluster.wait(lambda: cluster.pod("p") is None, "the pod to go")
    last = history(cluster, version)[-2]
    assert state(last)["terminated"]["exitCode"] == 137


def test_a_pre_stop_hook_comes_before_sigterm(cluster: Cluster, talk: Talk) -> None:
    scratch = {"volumes": [{"name": "v", "emptyDir": {}}]}
    container = handler(code=0, lifecycle=hook("sleep 0.2; echo hook > /v/hook"), volumeMounts=[{"name": "v", "mountPath": "/v"}])
    container["command"][-1] = container["command"][-1].replace('print("leaving"', 'print(open("/v/hook").read()')
    talk.create(PODS, pod_of(container, **scratch))
    wait_for_word(cluster, "ready")
    log = cluster.kubelets.run_of("default", "p").log("main", 0)
    kept = cluster.root / "kept.log"
    os.link(log, kept)

    talk.delete(f"{PODS}/p")
    cluster.wait(lambda: cluster.pod("p") is None, "the pod to go")

    assert kept.read_text() == "ready\nhook\n\n"


@pytest.mark.parametrize("command", [["sh", "-c", "exit 3"], ["/no/such/shell"]], ids=["fails", "is not there"])
def test_a_pre_stop_hook_that_goes_wrong_is_told_and_changes_nothing(cluster: Cluster, talk: Talk, command: list[str]) -> None:
    container = handler(code=7, lifecycle={"preStop": {"exec": {"command": command}}})
    version = talk.create(PODS, pod_of(container))["metadata"]["resourceVersion"]
    wait_for_word(cluster, "ready")

    talk.delete(f"{PODS}/p")
    cluster.wait(lambda: cluster.pod("p") is None, "the pod to go")

    assert state(history(cluster, version)[-2])["terminated"]["exitCode"] == 7
    assert "FailedPreStopHook" in reasons(talk)


def test_a_pre_stop_hook_uses_up_the_grace_period_and_two_seconds_come_after_it(cluster: Cluster, talk: Talk) -> None:
    leaves = handler(code=7, delay=1, lifecycle=hook("exec sleep 1000"))
    stays = shell("exec sleep 1000", "stays", lifecycle=hook("exec sleep 1000"))
    at_once = handler("quick", code=7)
    version = talk.create(PODS, pod_of(leaves, stays, at_once))["metadata"]["resourceVersion"]
    wait_for_word(cluster, "ready")
    cluster.wait(lambda: "ready" in log_of(cluster, container="quick"), "the other to be ready")

    began = time.monotonic()
    talk.delete(f"{PODS}/p", gracePeriodSeconds=1)
    cluster.wait(lambda: cluster.pod("p") is None, "the pod to go")

    assert time.monotonic() - began >= 3
    told = history(cluster, version)
    first = next(each for each in told if "terminated" in state(each, "quick"))
    assert "running" in state(first), "a container without a hook does not wait for those of others"
    last = told[-2]
    assert {name: state(last, name)["terminated"]["exitCode"] for name in ("main", "stays")} == {"main": 7, "stays": 137}


def test_a_pre_stop_hook_ends_with_its_container(cluster: Cluster, talk: Talk) -> None:
    script = "echo ready; until test -e /v/go; do sleep 0.05; done; exit 3"
    container = shell(script, lifecycle=hook("touch /v/go; exec sleep 1000"), volumeMounts=[{"name": "v", "mountPath": "/v"}])
    version = talk.create(PODS, pod_of(container, volumes=[{"name": "v", "emptyDir": {}}]))["metadata"]["resourceVersion"]
    wait_for_word(cluster, "ready")

    talk.delete(f"{PODS}/p")
    cluster.wait(lambda: cluster.pod("p") is None, "the pod to go")

    assert state(history(cluster, version)[-2])["terminated"]["exitCode"] == 3
    assert "FailedPreStopHook" in reasons(talk)


def test_what_runs_out_of_memory_is_killed_with_its_reason(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(handler(), handler("side")))
    wait_for_word(cluster, "ready")

    cluster.oom_kill("p", "side")

    cluster.wait(lambda: "terminated" in state(cluster.pod("p"), "side"), "the container to end")
    killed = state(cluster.pod("p"), "side")["terminated"]
    assert (killed["exitCode"], killed["reason"]) == (137, "OOMKilled")
    assert "running" in state(cluster.pod("p"))


def test_restarts_come_at_once_and_then_with_a_back_off(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("echo again; exit 1"), restartPolicy="Always"))

    def backing_off() -> Any:
        found = cluster.pod("p")
        return found if state(found).get("waiting", {}).get("reason") == "CrashLoopBackOff" else None

    found = cluster.wait(backing_off, "a back-off")
    status = found["status"]["containerStatuses"][0]
    assert status["restartCount"] == 1 and status["lastState"]["terminated"]["exitCode"] == 1
    assert "back-off 10s restarting failed container=main pod=p_default(" in status["state"]["waiting"]["message"]
    assert found["status"]["phase"] == "Running"
    cluster.wait(lambda: cluster.pod("p")["status"]["containerStatuses"][0]["restartCount"] >= 3, "more restarts")
    assert talk.get(f"{PODS}/p/log", previous="true") == "again\n"


def test_on_failure_ends_with_the_first_success(cluster: Cluster, talk: Talk) -> None:
    script = "test -e /v/been || { touch /v/been; exit 1; }"
    container = shell(script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    talk.create(PODS, pod_of(container, restartPolicy="OnFailure", volumes=[{"name": "v", "emptyDir": {}}]))
    assert wait_for_phase(cluster, "Succeeded")["status"]["containerStatuses"][0]["restartCount"] == 1


def test_init_containers_come_first_and_can_fail_the_pod(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("cat /v/x"), initContainers=[shell("exit 4", "prepare")]))
    failed = wait_for_phase(cluster, "Failed")
    assert failed["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert state(failed)["waiting"]["reason"] == "PodInitializing"


def test_an_image_that_cannot_be_pulled(cluster: Cluster, talk: Talk) -> None:
    cluster.images.bad["lost*"] = "lost:1: not found"
    talk.create(PODS, pod_of({**shell("true"), "image": "lost:1"}))

    seen = []

    def both() -> bool:
        waiting = state(cluster.pod("p")).get("waiting", {})
        if waiting not in seen:
            seen.append(waiting)
        return {"ErrImagePull", "ImagePullBackOff"} <= {each.get("reason") for each in seen}

    cluster.wait(both, "both reasons")
    told = {each.get("reason"): each.get("message") for each in seen}
    assert told["ErrImagePull"] == 'failed to pull and unpack image "lost:1": lost:1: not found'
    assert told["ImagePullBackOff"].startswith('Back-off pulling image "lost:1"')
    assert phase(cluster) == "Pending"
    del cluster.images.bad["lost*"]
    wait_for_phase(cluster, "Succeeded")


def test_a_node_without_a_network_keeps_pods_pending_and_says_so_in_events_alone(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("sleep 60"), name="before"))
    wait_for_phase(cluster, "Running", "before")
    cluster.break_network("n1", "no address left")
    talk.create(PODS, pod_of(shell("true")))

    def told() -> list[Any]:
        return [each for each in talk.get(EVENTS)["items"] if each["reason"] == "FailedCreatePodSandBox"]

    cluster.wait(lambda: len(told()) >= 2, "two tries")
    assert all("no address left" in each["message"] and each["involvedObject"]["name"] == "p" for each in told())
    assert state(cluster.pod("p")) == {"waiting": {"reason": "ContainerCreating"}} and phase(cluster) == "Pending"
    assert phase(cluster, "before") == "Running", "it has one"
    cluster.mend_network("n1")
    wait_for_phase(cluster, "Succeeded")


def test_references_to_nothing_keep_a_container_waiting(cluster: Cluster, talk: Talk) -> None:
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    talk.create(PODS, pod_of(shell('test "$A" = v', env=env)))
    cluster.wait(lambda: "waiting" in state(cluster.pod("p")) and "not found" in str(state(cluster.pod("p"))), "the complaint")
    assert state(cluster.pod("p"))["waiting"] == {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}

    talk.create(SECRETS, {"metadata": {"name": "s"}, "stringData": {"other": "v"}})
    cluster.wait(lambda: "couldn't find key k in Secret default/s" in str(state(cluster.pod("p"))), "the other complaint")
    talk.patch(f"{SECRETS}/s", {"stringData": {"k": "v"}})
    wait_for_phase(cluster, "Succeeded")


def test_a_volume_of_nothing_keeps_the_pod_creating(cluster: Cluster, talk: Talk) -> None:
    container = shell("cat /v/a", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    talk.create(PODS, pod_of(container, volumes=[{"name": "v", "configMap": {"name": "later"}}]))
    events = "/api/v1/namespaces/default/events"
    told = 'MountVolume.SetUp failed for volume "v" : configmap "later" not found'
    cluster.wait(lambda: any(each["message"] == told for each in talk.get(events)["items"]), "the event")
    assert state(cluster.pod("p"))["waiting"]["reason"] == "ContainerCreating"
    talk.create(CONFIGMAPS, config("later", a="here"))
    wait_for_phase(cluster, "Succeeded")


def test_a_command_that_does_not_exist_cannot_be_started(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of({"name": "main", "image": "i", "command": ["/no/such/program"]}))
    ended = state(wait_for_phase(cluster, "Failed"))["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")


def test_a_deadline_ends_a_pod(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(handler(code=0), activeDeadlineSeconds=1))
    failed = wait_for_phase(cluster, "Failed")
    assert failed["status"]["reason"] == "DeadlineExceeded"
    assert failed["status"]["message"] == "Pod was active on the node longer than the specified deadline"


def test_a_kubelet_low_on_memory_evicts(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(handler(code=0)))
    wait_for_word(cluster, "ready")
    cluster.evict_by_kubelet("p")
    failed = wait_for_phase(cluster, "Failed")
    assert (failed["status"]["reason"], reason(failed)) == ("Evicted", "TerminationByKubelet")
    assert "deletionTimestamp" not in failed["metadata"]


def test_a_forced_deletion_removes_the_object_at_once_and_the_process_soon(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("echo ready; exec sleep 1000")))
    wait_for_word(cluster, "ready")
    number = cluster.process_id("p")
    talk.delete(f"{PODS}/p", gracePeriodSeconds=0)
    assert talk.ask("GET", f"{PODS}/p").code == 404
    cluster.wait(lambda: not os.path.exists(f"/proc/{number}"), "the process to end")


def test_the_end_of_the_first_process_is_the_end_of_all(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("setsid sleep 1000 & echo $!; sleep 0.1")))
    wait_for_phase(cluster, "Succeeded")
    assert not os.path.exists(f"/proc/{int(log_of(cluster))}")


def test_logs_are_followed_to_the_end(cluster: Cluster, talk: Talk) -> None:
    talk.create(PODS, pod_of(shell("for i in 1 2 3; do echo $i; sleep 0.1; done")))
    cluster.wait(lambda: "running" in state(cluster.pod("p")), "the container")
    assert talk.get(f"{PODS}/p/log", follow="true") == "1\n2\n3\n"
    assert talk.get(f"{PODS}/p/log", tailLines="1") == "3\n"
    assert talk.ask("GET", f"{PODS}/p/log", container="other").code == 400

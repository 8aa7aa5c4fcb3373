"""Nothing that a double started outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.scenes import log_of, pod_of, shell, wait_for_word
from tests.k8s.talk import PODS, Talk

ROOT = Path(__file__).resolve().parents[2]
# Kubernetes itself makes one dollar of two in commands, so the shell's own process id is written with four.
FAMILY = (
    "setsid sh -c 'echo child $$$$; exec sleep 1000' & "
    "sh -c 'trap true TERM; echo child $$$$; sleep 1000' & "
    "echo child $$$$; echo ready; wait"
)
PROGRAM = f"""
import time
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.nodes import Node
from tests.k8s.scenes import log_of, pod_of, shell
from tests.k8s.talk import PODS, Talk

with Cluster([Node("n")]) as cluster:
    Talk(cluster.url).create(PODS, pod_of(shell({FAMILY!r})))
    cluster.wait(lambda: log_of(cluster).count("child") == 3, "the family")
    print(log_of(cluster), flush=True)
    time.sleep(1000)
"""


def pids_in(said: str) -> list[int]:
    return [int(line.split()[1]) for line in said.splitlines() if line.startswith("child")]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while alive(pids):
        assert time.monotonic() < deadline, f"still there: {alive(pids)}"
        time.sleep(0.01)


def test_a_cluster_that_ends_takes_every_process_along() -> None:
    with Cluster([Node("n")]) as cluster:
        Talk(cluster.url).create(PODS, pod_of(shell(FAMILY)))
        cluster.wait(lambda: log_of(cluster).count("child") == 3, "the family")
        wait_for_word(cluster, "ready")
        pids = pids_in(log_of(cluster))
        assert len(alive(pids)) == 3
        root = cluster.root
    assert alive(pids) == [] and not root.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_double_that_dies_takes_every_process_along(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as program:
        assert program.stdout is not None
        said = [program.stdout.readline() for _ in range(4)]
        pids = pids_in("".join(said))
        assert len(alive(pids)) == 3, said
        program.send_signal(number)
        program.communicate(timeout=20)
    wait_until_gone(pids)

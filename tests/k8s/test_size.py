"""A real master with a thousand workers that only pretend: what looking after them costs it, and the API server."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.integration.jobs import Scoring
from tests.k8s.double.cluster import Cluster
from tests.k8s.double.kinds import PODS
from tests.k8s.double.nodes import Node
from tests.k8s.double.objects import dig, is_terminating, name_of
from tests.k8s.jobs import Scene

MOST = 1_000
TAKEN = 100
QUIET_S = 15.0
QUESTIONS = ("get", "list", "watch")


def running(cluster: Cluster) -> set[str]:
    return {name_of(pod) for pod in cluster.store.each(PODS) if dig(pod, "status", "phase") == "Running" and not is_terminating(pod)}


def cpu_s(process: int) -> float:
    """What a process, with all its threads, has computed so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_thousand_workers_cost_less_than_half_a_core_and_no_question_without_a_change(tmp_path: Path) -> None:
    nodes = [Node(f"n{number}", cpu="64", pods=40, pretend=True) for number in range(30)]
    scoring = Scoring(tmp_path, shards=4)
    with Cluster(nodes) as cluster:
        scene = Scene(cluster, tmp_path, scoring, scoring.make(name="score", workers={"min": MOST, "max": MOST}))
        scene.start()
        try:
            master = scene.master.process
            assert master is not None
            scene.wait(lambda: len(running(cluster)) == MOST, "a thousand workers", seconds=120)
            assert cluster.calls.of("create", "pods") == MOST

            begun, computed = time.monotonic(), cpu_s(master.pid)
            # Those that have been there for longest: of one that goes before it was seen the next has the same name.
            first = running(cluster)
            gone = set(sorted(first, key=lambda name: int(name.rpartition("-")[2]))[:TAKEN])
            for name in gone:
                cluster.evict(name)
            scene.wait(lambda: len(running(cluster) - gone) == MOST, "others in place of a hundred", seconds=60)
            lasted = time.monotonic() - begun
            share = (cpu_s(master.pid) - computed) / lasted
            print(f"{TAKEN} of {MOST} replaced after {lasted:.1f} s, by {share:.2f} of a core")
            assert share < 0.5
            assert first - gone <= running(cluster)
            assert cluster.calls.of("create", "pods") == MOST + TAKEN

            # Whoever polls does so within this time.
            asked = [cluster.calls.of(verb, kind) for verb in QUESTIONS for kind in ("pods", "nodes")]
            computed = cpu_s(master.pid)
            time.sleep(QUIET_S)
            share = (cpu_s(master.pid) - computed) / QUIET_S
            print(f"nothing happens, for {share:.2f} of a core")
            assert share < 0.5
            assert [cluster.calls.of(verb, kind) for verb in QUESTIONS for kind in ("pods", "nodes")] == asked
            assert cluster.calls.of("create", "pods") == MOST + TAKEN
        finally:
            scene.master.clean_up()

"""What Ray's errors say of the death of an actor. Their words are those that Ray 2.60 was heard to say."""

from __future__ import annotations

import pytest

from antinfer.launchers.ray.cluster import explain_death
from antinfer.launchers.ray.facts import Death

exceptions = pytest.importorskip("ray.exceptions", reason="Ray is not installed: pip install 'antinfer[ray]'")

HEAD = "The actor died unexpectedly before finishing this task.\n\tclass_name: WorkerActor\n\tactor_id: 0073\n\tpid: 7\n\tip: 10.0.0.7\n"
NODE = "The actor died because its node has died. Node Id: dcf5\n\tthe actor's node was terminated unexpectedly: health check failed"
KILLED = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
ADVICE = " Some common causes include: (1) the process was killed by the OOM killer due to high memory usage"
IMPORT = (
    " Worker exit detail: RuntimeError: The actor with name WorkerActor failed to import.\nModuleNotFoundError: No module named 'antinfer'"
)
MEMORY = "1 worker(s) were killed due to the node running low on memory. Memory was 23GB used OOM kill reason: Memory usage exceeded"


@pytest.mark.parametrize(
    ("make", "death", "words"),
    [
        (lambda: exceptions.RayActorError(error_msg=HEAD + NODE), Death.NODE_LOST, NODE.replace("\n\t", " ")),
        (lambda: exceptions.RayActorError(error_msg=HEAD + NODE, preempted=True), Death.PREEMPTED, NODE.replace("\n\t", " ")),
        (lambda: exceptions.RayActorError(error_msg=HEAD + KILLED + ADVICE), Death.KILLED, KILLED),
        (lambda: exceptions.RayActorError(error_msg=HEAD + KILLED + IMPORT), Death.NOT_STARTED, "No module named 'antinfer' on the node: "),
        (lambda: exceptions.OutOfMemoryError(MEMORY), Death.OUT_OF_MEMORY, MEMORY.partition(" OOM")[0]),
        (lambda: exceptions.RuntimeEnvSetupError("pip says no"), Death.NOT_STARTED, "pip says no"),
    ],
)
def test_each_error_is_one_death_and_its_gist(make, death: Death, words: str) -> None:
    found, gist = explain_death(make())

    assert found is death
    assert words in gist and "class_name" not in gist and "common causes" not in gist

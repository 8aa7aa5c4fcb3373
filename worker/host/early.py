"""What a host does while it imports: read what to run, and start the predictor processes, which then load beside it."""

from __future__ import annotations

import json

from antinfer.worker.host.link import AgentLink
from antinfer.worker.hostlink import Setup
from antinfer.worker.predictors import spawn


def receive_setup(link: AgentLink) -> Setup | None:
    """Wait for what to run; None when the agent is gone."""
    message = link.receive()
    if message is None:
        return None
    if not isinstance(message, Setup):
        raise TypeError(f"the first message to a host is Setup, not {type(message).__name__}")
    return message


def start_predictors(setup: Setup, spare: spawn.Started) -> list[spawn.Started]:
    """Start one process for each stage that runs in processes, in order; `pipeline.graph` says how many follow.

    The spare is the only one, with all cores to itself, or none.
    """
    stages = json.loads(setup.document)["spec"]["pipeline"]
    wanted = sum("predict" in stage or stage.get("workers_as") == "processes" for stage in stages)
    if wanted == 1:
        return [spare]
    spare.discard()
    return [spawn.start(max(1, spawn.cores() // wanted)) for _ in range(wanted)]

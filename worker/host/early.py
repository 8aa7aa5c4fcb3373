"""What a host does while it imports: read what to run, and start the predictor processes, which then load beside it."""

from __future__ import annotations

import json
from typing import Any

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
    wanted = _in_processes(json.loads(setup.document)["spec"]["pipeline"], isolated=setup.isolated)
    if wanted == 1:
        return [spare]
    spare.discard()
    return [spawn.start(max(1, spawn.cores() // wanted)) for _ in range(wanted)]


def _in_processes(stages: list[dict[str, Any]], *, isolated: bool) -> int:
    ways = ("auto", "processes") if isolated else ("processes",)
    here: int = sum("predict" in stage or (_calls(stage) and stage.get("workers_as") in ways) for stage in stages)
    return here + sum(_in_processes(branch, isolated=isolated) for stage in stages for branch in stage.get("parallel", {}).values())


def _calls(stage: dict[str, Any]) -> bool:
    return "gather" not in stage and "parallel" not in stage

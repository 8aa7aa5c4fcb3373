"""What a host does while it imports: read what to run, and start the predictor processes, which then load beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
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

    The spare, which may compute with all cores, is the only one or the first whose model is on a GPU, which loads longest.
    """
    stages = list(_in_processes(json.loads(setup.document)["spec"]["pipeline"], isolated=setup.isolated))
    heirs = [at for at, stage in enumerate(stages) if len(stages) == 1 or ("predict" in stage and stage.get("num_gpus"))]
    if not heirs:
        spare.discard()
    threads = max(1, spawn.cores() // max(1, len(stages)))
    return [spare if heirs[:1] == [at] else spawn.start(threads) for at in range(len(stages))]


def _in_processes(stages: list[dict[str, Any]], *, isolated: bool) -> Iterator[dict[str, Any]]:
    """Return the stages that run in processes, in the order of the pipeline's nodes."""
    ways = ("auto", "processes") if isolated else ("processes",)
    for stage in stages:
        if "predict" in stage or (_calls(stage) and stage.get("workers_as") in ways):
            yield stage
        for branch in stage.get("parallel", {}).values():
            yield from _in_processes(branch, isolated=isolated)


def _calls(stage: dict[str, Any]) -> bool:
    return "gather" not in stage and "parallel" not in stage

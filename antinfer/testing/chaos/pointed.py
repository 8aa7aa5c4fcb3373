"""Faults at fault points: who is met is whoever comes there next (see `antinfer.faultpoints`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from antinfer.faultpoints import POINTS
from antinfer.testing.chaos.blows import PROGRAMS, Blow
from antinfer.testing.chaos.crew import Crew
from antinfer.testing.chaos.hits import Armed, Hit, publishes
from antinfer.testing.chaos.kinds import KINDS, MESSAGES
from antinfer.testing.chaos.points import PointFolder, Proof
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.watching import Sample

_USER_CODE: Final = "user.call"
_ACTIONS: Final = {
    "kill": "kill",
    "stop": "stop",
    "pause": "stop",
    "oom": "kill",
    "crash": "segv",
    "hang": "hang",
    "delay": "delay",
    "fail": "error",
}
_CALLS_BEFORE_HANG: Final = 4
"""Of one process: nobody knows how long its calls take before."""
_FAILINGS: Final = {"raise": "error", "crash": "segv", "hang": "hang"}


def points_of(crew: Crew) -> PointFolder:
    """Return the folder in which faults at points are armed."""
    assert crew.points is not None, "the plan has faults at points, so there is a folder for them"
    return crew.points


def _at_point(crew: Crew, what: Strike, now: Sample) -> Armed:
    rule = what.rule
    action = _ACTIONS.get(rule.kind, rule.kind)
    plan: dict[str, Any] = {}
    if action == "error":
        plan = {"errno": rule.error, **({"times": 0} if rule.lasts_s else {})}
    elif rule.lasts_s:
        plan = {"seconds": rule.lasts_s}
    name = points_of(crew).arm(rule.target, action, **plan)
    if plan.get("times") == 0:
        crew.later(rule.lasts_s, lambda: points_of(crew).disarm(name))
    return Armed((name,), describe)


def _in_user_code(crew: Crew, what: Strike, now: Sample) -> Armed:
    action = _ACTIONS[what.rule.kind]
    after = _CALLS_BEFORE_HANG if action == "hang" else 0
    name = points_of(crew).arm(_USER_CODE, action, where={"program": PROGRAMS[what.rule.target]}, after=after)
    return Armed((name,), describe)


def _poison(crew: Crew, what: Strike, now: Sample) -> Armed | None:
    if not crew.rows_to_poison:
        return None
    row = crew.rows_to_poison.pop(what.pick(len(crew.rows_to_poison)))
    name = points_of(crew).arm(_USER_CODE, _FAILINGS[what.rule.how], row=row, times=0, message="a poisonous row")
    return Armed((name,), describe)


def describe(proof: Proof, before: Sample) -> Hit:
    """Say what happened at a point."""
    said = {"point": proof.point, "action": proof.action, "pids": [proof.pid], "monotonic": proof.monotonic}
    return Hit(_program(proof), said, publishes(before))


def _program(proof: Proof) -> str:
    """Name the process that was met: a worker by its own name, what is below one by what it is."""
    words = proof.what.get("program", "").split()
    if "--name" in words[:-1]:
        return words[words.index("--name") + 1]
    for name, program in {**PROGRAMS, "master": "antinfer.master"}.items():
        if program in words:
            return f"{name} {proof.pid}"
    return f"process {proof.pid}"


def _named(kind: str, blow: Callable[[Crew, Strike, Sample], Armed | None], *targets: str) -> dict[tuple[str, str], Blow]:
    return {(kind, target): blow for target in targets}


BLOWS: Final[dict[tuple[str, str], Blow]] = {
    **{key: blow for kind in KINDS.values() if kind.points == "any" for key, blow in _named(kind.name, _at_point, *POINTS).items()},
    **_named("drop", _at_point, *MESSAGES),
    **_named("duplicate", _at_point, *MESSAGES),
    **_named("oom", _in_user_code, "predictor", "host"),
    **_named("crash", _in_user_code, "predictor", "host"),
    **_named("hang", _in_user_code, "predictor"),
    **_named("poison", _poison, "row"),
}

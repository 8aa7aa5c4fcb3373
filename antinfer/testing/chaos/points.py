"""Fault points from outside: arm them for the processes of a job, and read the proofs that they leave (see `antinfer.faultpoints`)."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from antinfer.errors import UsageError
from antinfer.faultpoints import CLAIMED, FIRED, POINTS, VARIABLE, Plan

ACTIONS: Final = ("kill", "term", "stop", "segv", "abort", "exit", "delay", "hang", "error", "drop", "duplicate", "note")
_MESSAGES: Final = ("worker.send", "worker.receive", "master.send", "master.receive")
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Proof:
    """A fault point that fired."""

    armed: str
    """Name that `arm` returned."""
    point: str
    action: str
    pid: int
    at: float
    """Seconds since the epoch."""
    monotonic: float
    """Seconds of the machine's monotonic clock."""
    what: Mapping[str, str] = field(default_factory=dict)
    """What the point told: ids, names, the ``program`` and its ``pid``."""


@dataclass(frozen=True, slots=True)
class PointFolder:
    """The folder that the processes of a job look into; give them `environment`."""

    path: Path

    def __post_init__(self) -> None:
        for folder in (self.path, self.path / CLAIMED, self.path / FIRED):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What every process must be started with, from its first instruction on."""
        return {VARIABLE: str(self.path)}

    def arm(self, point: str, action: str, **plan: Any) -> str:
        """Arm `point`; return the name under which `proofs` will speak of it.

        Args:
            point: one of `antinfer.faultpoints.POINTS`.
            action: one of `ACTIONS`.
            plan: the other keys of `antinfer.faultpoints.Plan`.

        Raises:
            UsageError: There is no such point, action or key, or the action means nothing at this point.
        """
        if point not in POINTS:
            raise UsageError(f"there is no fault point {point!r}", hint=f"Points: {', '.join(sorted(POINTS))}.")
        if action not in ACTIONS or (action in ("drop", "duplicate") and point not in _MESSAGES):
            raise UsageError(
                f"fault point {point} cannot {action!r}", hint=f"Actions: {', '.join(ACTIONS)}; drop and duplicate for messages alone."
            )
        unknown = sorted(set(plan) - set(Plan.__annotations__))
        if unknown:
            raise UsageError(f"fault point {point}: unknown key {unknown[0]!r}", hint=f"Keys: {', '.join(Plan.__annotations__)}.")
        name = f"{point}.{os.getpid()}-{next(_numbers):06d}"
        # Whole when it is seen: a process may look at any moment.
        draft = self.path / CLAIMED / f"{name}.arming"
        draft.write_text(json.dumps({"action": action, **plan}), encoding="utf-8")
        draft.rename(self.path / name)
        return name

    def disarm(self, name: str) -> bool:
        """Take a fault back; False when it has fired already, or was never armed."""
        try:
            (self.path / name).unlink()
        except FileNotFoundError:
            return False
        return True

    def proofs(self, armed: str = "") -> list[Proof]:
        """Return what has fired so far, in the order of time; only what was armed under the name `armed` if that is given."""
        found = [json.loads(path.read_text(encoding="utf-8")) for path in (self.path / FIRED).iterdir()]
        proofs = [Proof(point=words["armed"].rpartition(".")[0], **words) for words in found]
        return sorted((proof for proof in proofs if armed in ("", proof.armed)), key=lambda proof: proof.monotonic)

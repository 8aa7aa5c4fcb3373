"""What happened to a job under test: each fault with the proof that it fired, and how long the job took to get over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from antinfer.core.scaling import exits
from antinfer.launchers.processes import explain_exit
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.watching import Sample

Condition = Callable[[Sample], bool]
_SHOWN_PIDS: Final = 3


@dataclass
class Fault:
    """One fault that met the job."""

    kind: str
    target: str
    victim: str
    """Name of the process that it met."""
    at_s: float
    """Since the first lease."""
    share: float
    """Of the rows, published at that moment."""
    planned: str
    """When the plan wanted it."""
    proof: dict[str, Any]
    """What shows that it happened: exit statuses, states of processes, bytes lost."""
    lasts_s: float = 0.0
    recovered_s: float | None = None
    """Seconds from the fault until the work that it interrupted could be done again; None: not before the job was over."""

    def evidence(self) -> str:
        """Say in a few words what shows that it happened."""
        proof = self.proof
        pids = proof.get("pids", [])
        lost, state, status = proof.get("bytes_lost"), proof.get("state"), proof.get("status")
        said = [
            _named(pids),
            explain_exit(exits.of_process(status)) if status is not None else "",
            "gone" if state in ("Z", "X") else "",
            f"{proof['stopped']} stopped" if "stopped" in proof else "",
            f"{proof['action']} at {proof['point']}" if "point" in proof else "",
            f"{lost:,} bytes lost" + (f" of {proof['file']}" if "file" in proof else "") if lost is not None else "",
            f"{proof['connections']} connections, {proof['bytes_before']:,} bytes before" if "connections" in proof else "",
            f"pod {proof['pod']}, uid {proof['uid']}" if "uid" in proof else "",
            f"gone after {proof['gone_s']:.1f} s, exit code {proof['exit_code']}" if "gone_s" in proof else "",
        ]
        return ", ".join(filter(None, said))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _named(pids: list[int]) -> str:
    more = f" and {len(pids) - _SHOWN_PIDS} more" if len(pids) > _SHOWN_PIDS else ""
    return f"pid {', '.join(map(str, pids[:_SHOWN_PIDS]))}{more}" if pids else ""


@dataclass
class Recovery:
    """What must be seen, in this order, until a fault is got over."""

    fault: Fault
    since: float
    """Monotonic seconds."""
    conditions: list[Condition]

    def look(self, sample: Sample) -> bool:
        """Take in a sample that was made after the fault; return whether it is got over."""
        if sample.at <= self.since:
            return False
        while self.conditions and self.conditions[0](sample):
            self.conditions.pop(0)
        if self.conditions:
            return False
        self.fault.recovered_s = sample.at - self.since
        return True


@dataclass
class Chronicle:
    """All that happened in one run."""

    faults: list[Fault] = field(default_factory=list)
    missed: list[tuple[Strike, str]] = field(default_factory=list)
    """Strikes that met nobody, and why."""
    surprises: list[str] = field(default_factory=list)
    """What no fault explains: a process that died by itself, one that outlived its parent."""
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """Name, start and end (seconds since the first lease) of every worker and master."""

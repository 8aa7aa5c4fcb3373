"""What a run under faults proved, and what it cost."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from antinfer.testing.chaos.comparison import Comparison
from antinfer.testing.chaos.conductor import Run
from antinfer.testing.chaos.happenings import Fault
from antinfer.testing.chaos.plan import FaultPlan

Verdict = Literal["whole", "broken", "unproven"]


@dataclass(frozen=True, slots=True)
class Recoveries:
    """How long the job took to get over faults of one kind."""

    faults: int
    recovered: int
    median_s: float | None
    longest_s: float | None


@dataclass(frozen=True)
class ChaosReport:
    """The outcome of `antinfer.testing.chaos.run`."""

    job: str
    plan: FaultPlan
    seed: int
    input_rows: int
    undisturbed: Run
    disturbed: Run
    comparison: Comparison
    input_faults: tuple[str, ...]
    """How the output of the undisturbed run contradicts the input."""
    audit_faults: tuple[str, ...]
    """What the audit of the output under faults found."""
    accumulators: Literal["same", "close", "different", "none"]
    """Those of both runs; they differ where a fault has cost good rows."""
    rows_computed: int | None
    """Rows that came through the first step, those that were computed again included; None: nobody could count them."""
    folder: Path
    """Where report, picture, logs and outputs lie."""

    @property
    def faults(self) -> list[Fault]:
        return self.disturbed.chronicle.faults

    @property
    def rows_lost(self) -> int:
        return self.comparison.lost

    @property
    def rows_doubled(self) -> int:
        return self.comparison.doubled

    @property
    def rows_recomputed(self) -> int | None:
        """None: not known."""
        return None if self.rows_computed is None else max(0, self.rows_computed - self.input_rows)

    @property
    def wasted(self) -> float | None:
        """Share of the work that was done in vain; None: not known."""
        recomputed = self.rows_recomputed
        return None if recomputed is None or self.rows_computed is None else recomputed / max(1, self.rows_computed)

    @property
    def goodput(self) -> float:
        """Rows a second against the undisturbed run; 1: as fast as if nothing had happened."""
        return self.disturbed.rows_per_second / self.undisturbed.rows_per_second

    @property
    def problems(self) -> list[str]:
        """What is wrong with the output or the processes; empty when all is well."""
        found = self.comparison
        checks = [
            (found.lost, f"{found.lost:,} rows are lost"),
            (found.doubled, f"{found.doubled:,} rows are doubled"),
            (self.plan.values != "off" and found.beyond, f"{found.beyond:,} results are not close to those of the undisturbed run"),
            (self.plan.values == "exact" and found.differing, f"{found.differing:,} results are not those of the undisturbed run"),
            (self._accumulators_wrong, f"the accumulators are {self.accumulators}"),
            (self.disturbed.failure, f"the job failed: {self.disturbed.failure}"),
            (self.disturbed.left_behind, f"processes were left behind: {'; '.join(self.disturbed.left_behind)}"),
        ]
        said = [text for is_wrong, text in checks if is_wrong]
        return [*said, *self.input_faults, *self.audit_faults, *self.disturbed.chronicle.surprises, *self.disturbed.bugs]

    @property
    def counts_other_rows(self) -> bool:
        """Whether the accumulators of the two runs are over different rows, since a fault gave some up or kept some from it."""
        return bool(self.comparison.given_up or self.comparison.saved)

    @property
    def _accumulators_wrong(self) -> bool:
        if self.counts_other_rows:
            return False
        allowed = {"exact": ("same", "none"), "close": ("same", "close", "none"), "off": ("same", "close", "different", "none")}
        return self.accumulators not in allowed[self.plan.accumulators]

    @property
    def verdict(self) -> Verdict:
        """``whole``: nothing is wrong. ``broken``: something is. ``unproven``: nothing is, but too few faults met the job."""
        if self.problems:
            return "broken"
        return "whole" if len(self.faults) >= self.plan.at_least else "unproven"

    def recoveries(self) -> dict[str, Recoveries]:
        """Return the recovery times by kind of fault, such as ``kill worker``."""
        by_kind: dict[str, list[Fault]] = defaultdict(list)
        for fault in self.faults:
            by_kind[f"{fault.kind} {fault.target}"].append(fault)
        found = {}
        for kind, faults in sorted(by_kind.items()):
            times = [fault.recovered_s for fault in faults if fault.recovered_s is not None]
            found[kind] = Recoveries(len(faults), len(times), statistics.median(times) if times else None, max(times) if times else None)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        chronicle = self.disturbed.chronicle
        return {
            "verdict": self.verdict,
            "problems": self.problems,
            "job": self.job,
            "plan": self.plan.name,
            "seed": self.seed,
            "workers": self.plan.workers,
            "rows": self.input_rows,
            "rows_lost": self.rows_lost,
            "rows_doubled": self.rows_doubled,
            "rows_given_up": self.comparison.given_up,
            "rows_computed": self.rows_computed,
            "rows_recomputed": self.rows_recomputed,
            "wasted": self.wasted,
            "goodput": self.goodput,
            "seconds": self.disturbed.seconds,
            "undisturbed_seconds": self.undisturbed.seconds,
            "accumulators": self.accumulators,
            "comparison": self.comparison.to_json(),
            "faults_fired": len(self.faults),
            "faults": [fault.to_json() for fault in self.faults],
            "missed": [{"fault": str(what.rule), "planned": str(what.moment), "why": why} for what, why in chronicle.missed],
            "recovery": {
                kind: {"faults": each.faults, "recovered": each.recovered, "median_s": each.median_s, "longest_s": each.longest_s}
                for kind, each in self.recoveries().items()
            },
            "folder": str(self.folder),
        }

"""What a process needs to know to run the user code of one stage, and what all who run it know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StageCall:
    """What a process needs to know to run the user code of one stage: plain values, sent to predictors as JSON."""

    name: str
    kind: str
    target: str
    base_dir: str
    args: dict[str, Any] = field(default_factory=dict)
    batch_format: str = "numpy"
    columns: list[str] | None = None
    """Input columns of the call; None: all that there are."""
    tolerant: bool = False
    """The job accepts any number of bad rows, so no failure is hopeless."""

    @property
    def where(self) -> str:
        """The stage as messages name it."""
        return f"{self.kind} {self.name!r} ({self.target})"


@dataclass(slots=True)
class Standing:
    """What the user code of a stage has shown so far: shared by all threads and processes of a host that run it.

    Written without a lock: a count that is lost between two threads puts off a verdict by one row.
    """

    has_results: bool = False
    """It has worked, here or anywhere in the job: from now on rows that fail are bad rows, however many they are."""
    failures: dict[str, int] = field(default_factory=dict)
    """Before that: where user code raised -> rows that failed there alone."""
    deaths: int = 0
    """Rows that killed their process alone."""

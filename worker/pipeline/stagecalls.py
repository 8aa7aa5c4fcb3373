"""What a process needs to know to run the user code of one stage."""

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

"""Names of a job's keys. The braces put all keys of a job into one hash slot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The two keys of a job in the store."""

    job: str
    """Job id: letters, digits and dashes."""

    @property
    def fence(self) -> str:
        """Hash of epoch, seq, token, owner and run."""
        return f"antinfer:{{{self.job}}}:fence"

    @property
    def documents(self) -> str:
        """Hash of document key -> JSON text."""
        return f"antinfer:{{{self.job}}}:docs"

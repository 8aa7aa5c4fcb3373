"""What the processes of a job said: one file ``NAME.log`` each, in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_LAST_WORDS: Final = 6_000


def last_words(folder: Path) -> str:
    """Return the end of every log, for people."""
    return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-_LAST_WORDS:]}" for path in sorted(folder.glob("*.log")))


def bugs(folder: Path) -> list[str]:
    """Return what processes said that only a bug of ours makes them say."""
    return [
        f"{path.name}: {line}"
        for path in sorted(folder.glob("*.log"))
        for line in path.read_text(errors="replace").splitlines()
        if "InvariantViolation" in line
    ]

"""Near misses: what somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near(word: str, allowed: Iterable[str], limit: int = 3) -> list[str]:
    """Return the words of `allowed` that look like `word`, best first; case does not count."""
    by_lower = {name.lower(): name for name in allowed}
    return [by_lower[match] for match in difflib.get_close_matches(word.lower(), list(by_lower), n=limit, cutoff=0.6)]


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest word, or an empty string when none is near."""
    found = near(word, allowed, limit=1)
    return f"; did you mean {found[0]!r}?" if found else ""

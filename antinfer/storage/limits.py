"""Bounds on what a job may ask of its output place."""

from __future__ import annotations

from typing import Final

from antinfer.errors import UsageError

MOST_SHARDS: Final = 200_000
"""Parts to expect that are refused without force: so many files are slow to list and to read back."""


def too_many_shards(planned: str) -> UsageError:
    """Return (not raise) the error for a plan of more than `MOST_SHARDS`; `planned` says how many there are."""
    return UsageError(
        f"the output would have more than {MOST_SHARDS:,} parts (planned: {planned})",
        hint="Make shards larger (shard.bytes, shard.rows), or insist with --force.",
    )


PART_BYTES: Final = 256 << 20
"""At about this size a part is closed, in bytes as it is written; parts of slow work are closed earlier, by the commit interval, and so
are parts that take too much memory."""

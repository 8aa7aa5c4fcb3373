"""An order-free hash of row identities: tells which rows are in a part, however they were split, ordered and put together.

Every identity (shard, offset) is mixed into 64 bits; a set's hash is their sum modulo 2^64. So the hash of a union of disjoint sets is the
sum of their hashes, and a row that is missing, doubled or exchanged shows. It guards against mistakes, not against malice.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

EMPTY: Final = "0" * 16
"""Hash of no rows."""

_CHUNK_ROWS: Final = 1 << 15
"""Rows mixed at once: few enough to stay in the processor's cache."""

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_MASK: Final = (1 << 64) - 1


def hash_range(shard: int, start: int, stop: int) -> str:
    """Hash the rows ``[start, stop)`` of `shard`; 16 hex digits."""
    seed = _seed(shard)
    total = 0
    for at in range(start, stop, _CHUNK_ROWS):
        total += _sum(seed, np.arange(at, min(at + _CHUNK_ROWS, stop), dtype=np.uint64))
    return _text(total)


def hash_rows(shard: int, offsets: npt.ArrayLike) -> str:
    """Hash the rows of `shard` at `offsets` (non-negative integers; an offset named twice counts twice); 16 hex digits."""
    seed = _seed(shard)
    values = np.array(offsets, dtype=np.uint64)
    return _text(sum(_sum(seed, values[at : at + _CHUNK_ROWS].copy()) for at in range(0, len(values), _CHUNK_ROWS)))


def combine(first: str, second: str) -> str:
    """Return the hash of the union of two disjoint sets of rows."""
    return _text(int(first, 16) + int(second, 16))


def without(whole: str, part: str) -> str:
    """Return the hash of what is left of `whole` when `part`, a subset of it, is taken away."""
    return _text(int(whole, 16) - int(part, 16))


def _seed(shard: int) -> np.uint64:
    """Spread shards far apart, so that (shard, offset) and (shard + 1, offset - 1) do not meet."""
    return np.uint64(_sum(np.uint64(0), np.array([shard], dtype=np.uint64)))


def _sum(seed: np.uint64, values: npt.NDArray[np.uint64]) -> int:
    """Mix every value in place (the finaliser of splitmix64) and add them up; all arithmetic is modulo 2^64."""
    values += np.uint64(1)
    values *= _GAMMA
    values ^= seed
    values ^= values >> np.uint64(30)
    values *= _MIX_1
    values ^= values >> np.uint64(27)
    values *= _MIX_2
    values ^= values >> np.uint64(31)
    return int(values.sum(dtype=np.uint64))


def _text(total: int) -> str:
    return f"{total & _MASK:016x}"

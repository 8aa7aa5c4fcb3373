"""What is counted about each node of the pipeline while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class NodeStats:
    """Counters of one node since the start, for taking differences of (all but `rows_in` only grow), and what its queue holds now."""

    name: str
    rows_in: int = 0
    """Rows given to executors, less those that came back because a call had ended before them."""
    rows_done: int = 0
    """Rows of batches that were finished."""
    rows_out: int = 0
    """Rows that came out, children of a flat_map included."""
    batches: int = 0
    """Batches that were finished."""
    busy_seconds: float = 0.0
    """User code at work, summed over executors."""
    starved_seconds: float = 0.0
    """Executors waited since there was nothing for them to do, summed."""
    blocked_seconds: float = 0.0
    """Executors waited although there was, since the next queue was full, summed."""
    fused_rows: int = 0
    """Of a predictor's rows in, those of the hybrid stage before it that nobody had run yet."""
    fused_done: int = 0
    """Of its rows done, those."""
    fused_batches: int = 0
    """Of its batches, those of such rows."""
    fused_seconds: float = 0.0
    """Of its seconds at work, those for such rows."""
    queue_rows: int = 0
    """Rows that wait in front of the node now."""
    queue_bytes: int = 0

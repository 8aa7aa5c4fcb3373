"""A model whose batches take what a device needs for them, behind a parser that some texts are too much for."""

from __future__ import annotations

import ctypes
import re
import time
from typing import Any

import numpy as np

SECONDS_A_ROW = 0.0008
SECONDS_A_BATCH = 0.01
"""A small batch is not much faster than a large one."""


def parse(text: str) -> float:
    """Read a number. Raises ValueError for other texts, and breaks its process in two ways that real parsers know."""
    if text == "crash":
        ctypes.string_at(0)
    if text == "hang":
        re.match(r"(a+)+$", "a" * 60 + "b")
    return float(text)


class Score:
    """Sleeps for as long as a device would compute, which takes no core."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        numbers = np.array([parse(text) for text in batch["text"]])
        time.sleep(SECONDS_A_BATCH + SECONDS_A_ROW * len(numbers))
        return {"score": np.sqrt(numbers)}

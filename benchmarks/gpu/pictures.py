"""What every contestant does to a JPEG on a CPU: decode, scale the shorter side to 256, cut the middle out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

# Threads of the library's own would get in the way of ours, one picture each.
cv2.setNumThreads(1)

SHORTER: Final = 256
SIDE: Final = 224


def pixels(data: bytes, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return `SIDE` x `SIDE` x 3 bytes, red first; in `out` where given. Raises ValueError for what is no picture."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError("not a picture")
    height, width = picture.shape[:2]
    scale = SHORTER / min(height, width)
    scaled = cv2.resize(picture, (max(SHORTER, round(width * scale)), max(SHORTER, round(height * scale))), interpolation=cv2.INTER_LINEAR)
    top, left = (scaled.shape[0] - SIDE) // 2, (scaled.shape[1] - SIDE) // 2
    return np.asarray(cv2.cvtColor(scaled[top : top + SIDE, left : left + SIDE], cv2.COLOR_BGR2RGB, dst=out), dtype=np.uint8)


def stacked(jpegs: Sequence[Any]) -> NDArray[np.uint8]:
    """Return one batch, len(jpegs) x `SIDE` x `SIDE` x 3."""
    batch = np.empty((len(jpegs), SIDE, SIDE, 3), np.uint8)
    for data, row in zip(jpegs, batch, strict=True):
        pixels(data, row)
    return batch

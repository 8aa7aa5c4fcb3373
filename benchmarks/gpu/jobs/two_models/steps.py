from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gpu import pictures
from benchmarks.gpu.crops import cut

__all__ = ["cut", "decode", "decode_and_mark"]


def decode(batch: dict[str, Any]) -> dict[str, Any]:
    """JPEG files to pixels, 224 x 224."""
    return {"pixels": pictures.stacked(batch["jpeg"])}


def decode_and_mark(batch: dict[str, Any]) -> dict[str, Any]:
    """The same, and that each row wants the next step."""
    return decode(batch) | {"wanted": np.ones(len(batch["jpeg"]), bool)}

from __future__ import annotations

from typing import Any

import numpy as np


class There:
    """Takes pictures, gives a number each."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"y": np.zeros(len(batch["pixels"]), np.float32)}


class ThereAndBack:
    """Takes pictures and gives them back."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"pixels": batch["pixels"]}

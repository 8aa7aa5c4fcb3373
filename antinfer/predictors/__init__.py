"""Ready-made user code: a predictor around any torch module, and a JPEG decoder for the CPU and the GPU.

Named in a job file like any other user code: ``predict: antinfer.predictors:TorchPredictor``. Imported when first used; torch later still.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antinfer.predictors.jpeg import DecodeJpeg
    from antinfer.predictors.torch import TorchPredictor

__all__ = ["DecodeJpeg", "TorchPredictor"]

_HOMES = {"DecodeJpeg": "antinfer.predictors.jpeg", "TorchPredictor": "antinfer.predictors.torch"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

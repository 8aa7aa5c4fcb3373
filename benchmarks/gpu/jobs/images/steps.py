from __future__ import annotations

from typing import Any

from benchmarks.gpu import pictures


def decode(batch: dict[str, Any]) -> dict[str, Any]:
    """JPEG files to pixels, 224 x 224."""
    return {"pixels": pictures.stacked(batch["jpeg"])}

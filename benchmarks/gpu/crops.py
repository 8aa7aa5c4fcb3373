"""What stands between the two models: the places that a detector found, cut out and scaled for an embedder."""

from __future__ import annotations

from typing import Any, Final

import cv2

cv2.setNumThreads(1)

WINDOW: Final = 96
SIDE: Final = 112


def cut(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each place whose score is at least the mean of its picture's: one to four."""
    pixels, scores = row["pixels"], row["scores"]
    height, width = pixels.shape[:2]
    least = scores.mean()
    rows = []
    for (left, top), score in zip(row["corners"].tolist(), scores.tolist(), strict=True):
        if score >= least:
            left, top = min(left, width - WINDOW), min(top, height - WINDOW)
            rows.append({"crop": cv2.resize(pixels[top : top + WINDOW, left : left + WINDOW], (SIDE, SIDE)), "score": score})
    return rows

"""The user's side of a job: plain functions and classes over batches."""

from __future__ import annotations

import numpy as np

Batch = dict[str, np.ndarray]


def features(batch: Batch) -> Batch:
    """Combine the two inputs into what the model takes."""
    return {"x": batch["a"] - batch["b"], "label": batch["label"]}


class Model:
    """Made once per predictor process; put your own model here."""

    def __init__(self, slope: float, offset: float) -> None:
        self.slope = slope
        self.offset = offset

    def __call__(self, batch: Batch) -> Batch:
        return {"score": 1 / (1 + np.exp(-(self.slope * batch["x"] + self.offset))), "label": batch["label"]}

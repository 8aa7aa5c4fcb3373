"""User code of the example: replace it, or install yours in the image."""

import numpy as np


def size(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return how long each text is, in characters."""
    return {"characters": np.array([len(text) for text in batch["text"]], np.int64)}

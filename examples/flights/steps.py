"""Will this flight arrive late? A factorization machine over embeddings of what is known at departure planning."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

Batch = dict[str, np.ndarray]
LATE_MINUTES = 15
BUCKETS = 4096


def codes_of(batch: Batch) -> np.ndarray:
    """Return the bucket of every feature value: int32, rows x features."""
    return np.stack([_buckets(name, batch[name]) for name in LateModel.COLUMNS], axis=1)


def _buckets(name: str, values: np.ndarray) -> np.ndarray:
    distinct, inverse = np.unique(values.astype(str), return_inverse=True)
    hashed = [zlib.crc32(f"{name}={value}".encode()) % BUCKETS for value in distinct]
    return np.asarray(hashed, np.int32)[inverse]


def encode(batch: Batch) -> Batch:
    """Turn the schedule of a flight into feature codes, and its arrival delay into the label (missing: it never arrived)."""
    delay = batch["arr_delay"].astype(np.float64)
    return {"codes": codes_of(batch), "late": np.where(np.isnan(delay), np.nan, delay > LATE_MINUTES)}


class LateModel:
    """Factorization machine: a bias, a weight per feature value, and the dot products of their embeddings."""

    COLUMNS: ClassVar = ("carrier", "origin", "dest", "month", "day", "hour")

    def __init__(self, weights: str) -> None:
        path = Path(weights)
        stored = np.load(path if path.is_absolute() else Path(__file__).parent / path)
        self.bias, self.linear, self.vectors = stored["bias"], stored["linear"], stored["vectors"]

    def __call__(self, batch: Batch) -> Batch:
        return {"score": self.score(batch["codes"]), "late": batch["late"]}

    def score(self, codes: np.ndarray) -> np.ndarray:
        """Return the probability of being late: float32, one per row of `codes`."""
        vectors = self.vectors[codes]
        pairs = 0.5 * (vectors.sum(1) ** 2 - (vectors**2).sum(1)).sum(1)
        return 1 / (1 + np.exp(-(self.bias + self.linear[codes].sum(1) + pairs)))

    # -- training, used by prepare.py only ----------------------------------------------------------------------------------------
    @classmethod
    def untrained(cls, width: int, random: np.random.Generator) -> LateModel:
        model = cls.__new__(cls)
        model.bias = np.float32(-1.2)
        model.linear = np.zeros(BUCKETS, np.float32)
        model.vectors = (0.05 * random.standard_normal((BUCKETS, width))).astype(np.float32)
        model._seen = [np.full(BUCKETS, 1e-6, np.float32), np.full((BUCKETS, width), 1e-6, np.float32)]
        return model

    def learn(self, codes: np.ndarray, late: np.ndarray, rate: float = 0.05) -> None:
        """Take one Adagrad step on a batch."""
        error = (self.score(codes) - late)[:, None]
        vectors = self.vectors[codes]
        slope = error[:, :, None] * (vectors.sum(1, keepdims=True) - vectors)
        for weights, seen, step in (
            (self.linear, self._seen[0], np.broadcast_to(error, codes.shape)),
            (self.vectors, self._seen[1], slope),
        ):
            total = np.zeros_like(weights)
            np.add.at(total, codes, step)
            seen += total**2
            weights -= rate * total / np.sqrt(seen)
        self.bias -= np.float32(0.001 * error.mean())

    def save(self, path: Path) -> None:
        np.savez(path, bias=self.bias, linear=self.linear, vectors=self.vectors)

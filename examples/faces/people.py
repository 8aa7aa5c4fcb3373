"""Read the output and say who is who: faces less than 0.6 apart, directly or through others, are one person's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

SAME_PERSON = 0.6
SMALLEST = 70
"""Pixels: blurred faces look alike."""


def read_faces(output: Path) -> tuple[list[str], np.ndarray]:
    """Return, for each face that is large enough, the name of its photograph, and its embedding: float32, faces x 128."""
    rows = ds.dataset(output, format="parquet").to_table(columns=["path", "faces"]).to_pylist()
    found = [(Path(row["path"]).name, face["embedding"]) for row in rows for face in row["faces"] if width(face["box"]) >= SMALLEST]
    return [name for name, _ in found], np.array([embedding for _, embedding in found], np.float32).reshape(-1, 128)


def width(box: list[int]) -> int:
    left, _, right, _ = box
    return right - left


def people(embeddings: np.ndarray) -> list[list[int]]:
    """Return the faces of each person, the most photographed first."""
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None, :], axis=2)
    person = np.arange(len(embeddings))
    for one, other in np.argwhere(distances < SAME_PERSON):
        person[person == person[other]] = person[one]
    return sorted((np.flatnonzero(person == number).tolist() for number in np.unique(person)), key=len, reverse=True)


if __name__ == "__main__":
    photographs, embeddings = read_faces(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "output")
    for number, faces in enumerate(people(embeddings), 1):
        print(f"person {number}, seen {len(faces)} times: {', '.join(sorted({photographs[face] for face in faces}))}")

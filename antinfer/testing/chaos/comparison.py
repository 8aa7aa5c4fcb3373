"""The audit of a run under faults: every row of the input exactly once, as in a run that nothing disturbed.

It reads parts with plain pyarrow and tells rows by the identity that they carry, so nothing that a job says about itself vouches for it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet

from antinfer.core.records import parse_output_name
from antinfer.errors import OutputError
from antinfer.storage import layout
from antinfer.storage.place import OutputPlace

_SHARD: Final = "_shard"
_OFFSET: Final = "_offset"
_RELATIVE: Final = 1e-5
_ABSOLUTE: Final = 1e-7
"""Floats that differ by less are alike, as `Strictness` `close` has it: the last digits of single precision."""

Offsets = npt.NDArray[np.int64]


@dataclass
class Comparison:
    """How the output of one run differs from that of another, in rows."""

    rows: int = 0
    """Rows of the input in the output that is compared with: as results or in quarantine."""
    lost: int = 0
    """Rows, or results of a row that has several, that the run under faults lacks."""
    doubled: int = 0
    """Rows, or results, that it has too often."""
    given_up: int = 0
    """Rows that it quarantined although they are good: what a poisonous fault costs. They are neither lost nor doubled."""
    saved: int = 0
    """Rows that it has although the other run quarantined them."""
    differing: int = 0
    """Results that are not the same to the last bit."""
    beyond: int = 0
    """Results that are not even close."""
    columns: list[str] = field(default_factory=list)
    """Columns in which results differ at all."""
    examples: list[str] = field(default_factory=list)
    """Some of the rows that are lost or doubled."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(undisturbed: OutputPlace, disturbed: OutputPlace) -> Comparison:
    """Compare two outputs of one job, shard by shard.

    Raises:
        OutputError: A part or a quarantine object cannot be read, or its rows carry no identity.
    """
    found = Comparison()
    before, after = _Output(undisturbed), _Output(disturbed)
    columns: set[str] = set()
    for shard in sorted(before.shards | after.shards):
        _compare_shard(shard, before, after, found, columns)
    found.columns = sorted(columns)
    return found


class _Output:
    """Parts and quarantined rows of an output, by shard."""

    def __init__(self, place: OutputPlace) -> None:
        self._place = place
        self._parts: dict[int, list[str]] = defaultdict(list)
        for part in place.list_parts():
            self._parts[parse_output_name(part.name)[0]].append(part.name)
        self._quarantined: dict[int, list[int]] = defaultdict(list)
        for kept in place.list_objects(layout.QUARANTINE):
            table = _read(place, kept.name, _read_arrow)
            for shard, offset in zip(table.column("shard").to_pylist(), table.column("offset").to_pylist(), strict=True):
                self._quarantined[shard].append(offset)

    @property
    def shards(self) -> set[int]:
        return {*self._parts, *self._quarantined}

    def quarantined(self, shard: int) -> Offsets:
        return np.sort(np.array(self._quarantined.get(shard, []), np.int64))

    def results(self, shard: int) -> pa.Table | None:
        """Return the rows in the parts of a shard in the order of their offsets; None when there are none."""
        tables = [table for name in self._parts.get(shard, []) if (table := _read_part(self._place, name)).num_rows]
        if not tables:
            return None
        table = pa.concat_tables(tables, promote_options="permissive")
        strangers = pc.sum(pc.not_equal(table.column(_SHARD), shard)).as_py()
        if strangers:
            raise OutputError(f"{strangers} rows in the parts of shard {shard} belong to another shard")
        order = np.argsort(table.column(_OFFSET).to_numpy(), kind="stable")
        return table.take(pa.array(order))


def _compare_shard(shard: int, before: _Output, after: _Output, found: Comparison, columns: set[str]) -> None:
    old, new = before.results(shard), after.results(shard)
    old_ids, new_ids = _offsets(old), _offsets(new)
    old_bad, new_bad = before.quarantined(shard), after.quarantined(shard)
    rows = np.union1d(old_ids, old_bad)
    found.rows += len(rows)
    given_up = np.setdiff1d(np.intersect1d(new_bad, old_ids), np.union1d(new_ids, old_bad))
    saved = np.setdiff1d(np.intersect1d(old_bad, new_ids), np.union1d(old_ids, new_bad))
    found.given_up += len(given_up)
    found.saved += len(saved)
    lost = [*_missing(old_ids, new_ids, given_up), *_missing(old_bad, new_bad, saved)]
    # A row that was saved may have one result or several: only what the other run has tells how many are right.
    doubled = [*_missing(new_ids, old_ids, saved), *_missing(new_bad, old_bad, given_up), *_repeated(new_bad)]
    found.lost += sum(count for _, count in lost)
    found.doubled += sum(count for _, count in doubled)
    for what, rows_of in (("lost", lost), ("doubled", doubled)):
        found.examples += [f"{what}: shard {shard}, row {offset}" for offset, _ in rows_of][: max(0, 10 - len(found.examples))]
    if old is not None and new is not None:
        _compare_values(old, new, found, columns)


def _offsets(table: pa.Table | None) -> Offsets:
    return np.empty(0, np.int64) if table is None else table.column(_OFFSET).to_numpy().astype(np.int64)


def _missing(wanted: Offsets, present: Offsets, but: Offsets) -> list[tuple[int, int]]:
    """Return the offsets that `present` holds less often than `wanted`, and how much less often."""
    ids, counts = np.unique(wanted, return_counts=True)
    have_ids, have_counts = np.unique(present, return_counts=True)
    at = np.searchsorted(have_ids, ids)
    known = at < len(have_ids)
    known[known] = have_ids[at[known]] == ids[known]
    have = np.zeros(len(ids), np.int64)
    have[known] = have_counts[at[known]]
    short = np.where(np.isin(ids, but), 0, counts - have)
    return [(int(ids[n]), int(short[n])) for n in np.flatnonzero(short > 0)]


def _repeated(offsets: Offsets) -> list[tuple[int, int]]:
    ids, counts = np.unique(offsets, return_counts=True)
    return [(int(ids[n]), int(counts[n] - 1)) for n in np.flatnonzero(counts > 1)]


# -- values ------------------------------------------------------------------------------------------------------------------------------


def _compare_values(old: pa.Table, new: pa.Table, found: Comparison, columns: set[str]) -> None:
    """Compare the results of rows that both have equally often."""
    old, new = _alike(old, new), _alike(new, old)
    differing = np.zeros(old.num_rows, bool)
    beyond = np.zeros(old.num_rows, bool)
    for name in old.column_names:
        if name not in new.column_names:
            exact = far = np.ones(old.num_rows, bool)
        else:
            exact, far = _differences(old.column(name), new.column(name))
        if exact.any():
            columns.add(name)
        differing |= exact
        beyond |= far
    found.differing += int(differing.sum())
    found.beyond += int(beyond.sum())


def _alike(table: pa.Table, other: pa.Table) -> pa.Table:
    ids, counts = np.unique(_offsets(table), return_counts=True)
    others = dict(zip(*map(np.ndarray.tolist, np.unique(_offsets(other), return_counts=True)), strict=True))
    same = ids[[others.get(offset) == count for offset, count in zip(ids.tolist(), counts.tolist(), strict=True)]]
    return table if len(same) == len(ids) else table.filter(pa.array(np.isin(_offsets(table), same)))


def _differences(old: pa.ChunkedArray, new: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Tell for every row whether the values differ at all, and whether they are not even close."""
    if old.type == new.type and old.equals(new):
        nothing = np.zeros(len(old), bool)
        return nothing, nothing
    if pa.types.is_floating(old.type) and pa.types.is_floating(new.type):
        before, after = (column.to_numpy().astype(np.float64) for column in (old, new))
        both_nan = np.isnan(before) & np.isnan(after)
        close = np.isclose(before, after, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        return (before != after) & ~both_nan, ~close
    pairs = list(zip(old.to_pylist(), new.to_pylist(), strict=True))
    exact = np.array([not alike(a, b, exact=True) for a, b in pairs], bool)
    far = np.array([bad and not alike(a, b, exact=False) for bad, (a, b) in zip(exact, pairs, strict=True)], bool)
    return exact, far


def alike(a: Any, b: Any, *, exact: bool) -> bool:
    """Tell whether two plain values (numbers, texts, lists, mappings of them) are the same, or, unless `exact`, close."""
    if isinstance(a, float) and isinstance(b, float):
        if a == b or (math.isnan(a) and math.isnan(b)):
            return True
        return not exact and math.isclose(a, b, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key], exact=exact) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(alike(x, y, exact=exact) for x, y in zip(a, b, strict=True))
    return bool(a == b)


# -- reading -----------------------------------------------------------------------------------------------------------------------------


def _read_part(place: OutputPlace, name: str) -> pa.Table:
    readers = {".parquet": pyarrow.parquet.read_table, ".arrow": _read_arrow, ".jsonl": pyarrow.json.read_json}
    try:
        reader = readers[PurePosixPath(name).suffix]
    except KeyError:
        raise OutputError(f"{place.uri}/{name}: parts of this format cannot be read back for a comparison") from None
    table = _read(place, name, reader)
    if table.num_rows and not {_SHARD, _OFFSET} <= set(table.column_names):
        raise OutputError(f"the rows of {place.uri}/{name} carry no identity")
    return table


def _read(place: OutputPlace, name: str, reader: Callable[[BinaryIO], pa.Table]) -> pa.Table:
    try:
        with place.open(name) as file:
            return reader(file)
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{place.uri}/{name} cannot be read: {error}") from error


def _read_arrow(file: BinaryIO) -> pa.Table:
    with pa.ipc.open_file(file) as reader:
        return reader.read_all()

"""Parts that were written before all types were known, and the plain readers that have to get along with them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from antinfer.core.ids import LeaseId, staged_name
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.errors import SchemaMismatchError
from antinfer.storage import latetypes, layout, manifest, parts, sinks
from antinfer.storage.place import OutputPlace, open_place


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path / "out"))


def publish(place: OutputPlace, shard: int, sink: str = "parquet", **columns: Any) -> CommitRecord:
    """Publish a part as a worker does that knows no more than these columns."""
    table = pa.table(columns)
    known = not any(pa.types.is_null(kind) for kind in table.schema.types)
    kinds: list[Any] = ["part"] if sinks.carries_record(sink) else ["record", "part"]
    staged = staged_name(LeaseId(1, 1 + shard), shard, 0, table.num_rows, uuid4().hex[:8])
    schema = latetypes.fingerprint(table.schema) if known else ""
    record = CommitRecord(shard, 0, table.num_rows, staged, tuple(map(StagedObject, kinds)), rows_out=table.num_rows, schema=schema)
    files = {kind: os.path.join(place.local_spool(), uuid4().hex) for kind in kinds}
    writer = sinks.open_writer(sink, files["part"], table.schema)
    writer.write(table)
    size = writer.close({layout.RECORD_KEY: parts.record_text(record)})
    if "record" in files:
        Path(files["record"]).write_text(parts.record_text(record))
    for kind, path in files.items():
        place.stage(staged, kind, layout.final_name(kind, record, sink), path)
    record = replace(record, size_bytes=size)
    place.publish(record, sink)
    return record


@pytest.mark.parametrize("sink", ["parquet", "arrow"])
@pytest.mark.parametrize("first", [0, 1], ids=["nulls first", "nulls last"])
def test_plain_readers_read_the_whole_output(place: OutputPlace, first: int, sink: str) -> None:
    values: list[Any] = [None, None], ["a", "b"]
    made = [publish(place, shard, sink, row=[0, 1], text=values[(shard + first) % 2]) for shard in range(2)]
    settled = latetypes.settle(place, made, sink, {})
    table = ds.dataset(place.uri, format="parquet" if sink == "parquet" else "ipc").to_table()
    assert table.schema.field("text").type == pa.string()
    assert table["text"].to_pylist() == [*values[first], *values[1 - first]]
    assert {layout.final_names(each, sink)[-1]: each.size_bytes for each in settled} == {
        stored.name: stored.size_bytes for stored in place.list_parts()
    }
    assert [each.staged for each in manifest.published(place, manifest.Listing.of(place), sink, ())] == [each.staged for each in made]
    assert latetypes.settle(place, settled, sink, {}) == settled, "done again, it ends in the same"


def test_parts_teach_each_other_what_each_knows(place: OutputPlace) -> None:
    columns: list[dict[str, Any]] = [
        {"a": [None], "b": [1], "deep": pa.array([{"x": None}])},
        {"a": ["a"], "b": [None], "deep": pa.array([{"x": None}])},
        {"a": [None], "b": [None], "deep": pa.array([{"x": [0.5]}])},
        {"a": [None], "b": [None], "deep": pa.array([None])},
    ]
    latetypes.settle(place, [publish(place, shard, **each) for shard, each in enumerate(columns)], "parquet", {})
    table = ds.dataset(place.uri).to_table()
    assert table.schema.types == [pa.string(), pa.int64(), pa.struct({"x": pa.list_(pa.float64())})]
    assert table["deep"].to_pylist() == [{"x": None}, {"x": None}, {"x": [0.5]}, None]


def test_a_column_without_any_value_stays_as_it_is(place: OutputPlace) -> None:
    made = [publish(place, shard, row=[shard], text=[None]) for shard in range(2)]
    before = place.list_parts()
    assert latetypes.settle(place, made, "parquet", {}) == made
    assert place.list_parts() == before
    assert ds.dataset(place.uri).to_table()["row"].to_pylist() == [0, 1]


@pytest.mark.parametrize("other", [{"row": ["x"], "text": [None]}, {"row": [1], "label": [None]}])
def test_parts_that_contradict_each_other_are_named(place: OutputPlace, other: dict[str, Any]) -> None:
    made = [publish(place, 0, row=[0], text=[None]), publish(place, 1, **other)]
    with pytest.raises(SchemaMismatchError, match=layout.final_names(made[1], "parquet")[-1]):
        latetypes.settle(place, made, "parquet", {})


def test_what_a_worker_tells_is_told_once(place: OutputPlace) -> None:
    schema = pa.schema({"a": pa.string(), "v": pa.fixed_shape_tensor(pa.float32(), (3,))})
    for _ in range(2):
        latetypes.tell(place, schema)
    assert latetypes.told(place) == [schema]

"""The comparison of two outputs finds every row that is lost, doubled, or not what it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.errors import OutputError
from antinfer.storage.place import open_place
from antinfer.testing.chaos.comparison import Comparison, alike, compare


def output(
    folder: Path, *parts: tuple[int, int, int, Sequence[int]], quarantined: Sequence[int] = (), values: dict[int, float] | None = None
) -> Path:
    """Write parts (shard, start, stop, offsets) whose value is the offset, or what `values` says; and quarantined rows of shard 0."""
    (folder / "_antinfer" / "quarantine").mkdir(parents=True)
    for shard, start, stop, offsets in parts:
        scores = [(values or {}).get(offset, float(offset)) for offset in offsets]
        columns = {
            "_shard": pa.array([shard] * len(offsets)),
            "_offset": pa.array(offsets),
            "score": scores,
            "tags": [["a"]] * len(offsets),
        }
        pq.write_table(pa.table(columns), folder / f"part-{shard:08d}-{start:012d}-{stop:012d}.parquet")
    if quarantined:
        table = pa.table({"shard": [0] * len(quarantined), "offset": list(quarantined)})
        with pa.OSFile(str(folder / "_antinfer" / "quarantine" / "q"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return folder


def compared(undisturbed: Path, disturbed: Path) -> Comparison:
    return compare(open_place(str(undisturbed)), open_place(str(disturbed)))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return output(tmp_path / "before", (0, 0, 6, [0, 1, 2, 4, 5]), (1, 0, 3, [0, 1, 2]), quarantined=[3])


def test_the_same_rows_in_other_parts_and_another_order(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 4, [2, 0, 1]), (0, 4, 6, [4, 5]), (1, 0, 3, [2, 1, 0]), quarantined=[3])
    assert compared(before, after) == Comparison(rows=9)


def test_a_lost_row(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 6, [0, 1, 2, 5]), (1, 0, 3, [0, 1, 2]), quarantined=[3])
    assert (compared(before, after).lost, compared(before, after).doubled) == (1, 0)
    assert compared(before, after).examples == ["lost: shard 0, row 4"]


def test_a_lost_shard(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 6, [0, 1, 2, 4, 5]), quarantined=[3])
    assert (compared(before, after).lost, compared(before, after).rows) == (3, 9)


def test_a_lost_quarantined_row(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 6, [0, 1, 2, 4, 5]), (1, 0, 3, [0, 1, 2]))
    assert compared(before, after).lost == 1


def test_a_doubled_row(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 4, [0, 1, 2]), (0, 2, 6, [2, 4, 5]), (1, 0, 3, [0, 1, 2]), quarantined=[3])
    assert (compared(before, after).lost, compared(before, after).doubled) == (0, 1)


def test_a_row_both_in_a_part_and_in_quarantine_is_doubled(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 6, [0, 1, 2, 3, 4, 5]), (1, 0, 3, [0, 1, 2]), quarantined=[3])
    assert (compared(before, after).lost, compared(before, after).doubled) == (0, 1)


def test_a_row_that_was_given_up_is_neither_lost_nor_doubled(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 6, [0, 1, 2, 5]), (1, 0, 3, [0, 1, 2]), quarantined=[3, 4])
    assert (compared(before, after).lost, compared(before, after).doubled, compared(before, after).given_up) == (0, 0, 1)


def test_rows_with_several_results_count_each(tmp_path: Path) -> None:
    before = output(tmp_path / "before", (0, 0, 3, [0, 1, 1, 1, 2]))
    after = output(tmp_path / "after", (0, 0, 3, [0, 1, 1, 2, 2]))
    assert (compared(before, after).lost, compared(before, after).doubled) == (1, 1)


def test_values(tmp_path: Path, before: Path) -> None:
    rows = ((0, 0, 6, [0, 1, 2, 4, 5]), (1, 0, 3, [0, 1, 2]))
    near = compared(before, output(tmp_path / "near", *rows, quarantined=[3], values={5: 5.0 + 1e-9}))
    assert (near.differing, near.beyond, near.columns) == (1, 0, ["score"])
    far = compared(before, output(tmp_path / "far", *rows, quarantined=[3], values={5: 6.0}))
    assert (far.differing, far.beyond, far.lost, far.doubled) == (1, 1, 0, 0)


def test_rows_under_the_name_of_another_shard(tmp_path: Path, before: Path) -> None:
    after = output(tmp_path / "after", (0, 0, 6, [0, 1, 2, 4, 5]), (1, 0, 3, [0, 1, 2]), quarantined=[3])
    (after / "part-00000000-000000000000-000000000006.parquet").rename(after / "part-00000002-000000000000-000000000006.parquet")
    with pytest.raises(OutputError, match="belong to another shard"):
        compared(before, after)


def test_rows_without_identity(tmp_path: Path, before: Path) -> None:
    pq.write_table(pa.table({"score": [1.0]}), before / "part-00000005-000000000000-000000000001.parquet")
    with pytest.raises(OutputError, match="carry no identity"):
        compared(before, before)


def test_alike() -> None:
    assert alike({"a": [1, float("nan")]}, {"a": [1, float("nan")]}, exact=True)
    assert not alike({"a": 0.1}, {"a": 0.1 + 1e-12}, exact=True)
    assert alike({"a": 0.1}, {"a": 0.1 + 1e-12}, exact=False)
    assert not alike({"a": 1}, {"b": 1}, exact=False)
    assert not alike([1, 2], [1], exact=False)

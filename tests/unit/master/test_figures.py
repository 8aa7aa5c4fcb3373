"""What is shown of a job: speed over the last seconds, rows planned, rows by worker."""

from __future__ import annotations

from antinfer.core.ids import StagedName
from antinfer.core.records import CommitRecord
from antinfer.master.status import Figures


def test_the_speed_is_that_of_the_last_ten_seconds() -> None:
    figures = Figures(0)
    assert figures.rows_per_second == 0
    for second in range(30):
        figures.sample(second * 1000, 0 if second < 15 else (second - 15) * 100)
    assert figures.rows_per_second == 100


def test_shards_of_unknown_size_are_counted_apart() -> None:
    figures = Figures(0)
    figures.planned((10, None, 5))
    assert (figures.rows_planned, figures.unsized) == (15, 1)


def test_rows_are_counted_by_worker() -> None:
    figures = Figures(0)
    ranges = ((0, 4, "a"), (4, 9, "b"))
    figures.committed(CommitRecord(0, start, stop, StagedName("1-1.0.a"), (), 0, worker=name) for start, stop, name in ranges)
    assert figures.rows_by_worker == {"a": 4, "b": 5}

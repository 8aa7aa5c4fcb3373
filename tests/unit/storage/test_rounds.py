"""Which rows a retry takes, and what an output says of its rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.core.ids import ShardId
from antinfer.core.plan import PlanIndex
from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord
from antinfer.core.rounds import RetriedShard, Round
from antinfer.errors import OutputError
from antinfer.storage import layout, rounds
from antinfer.storage.place import OutputPlace, open_place
from tests.unit.storage import outputs


@pytest.fixture
def place(tmp_path: Path) -> OutputPlace:
    return open_place(str(tmp_path / "out"))


def runs(*edges: tuple[int, int]) -> list[Rows]:
    return [Rows(*each) for each in edges]


def found(place: OutputPlace, records: list[CommitRecord]) -> dict[int, list[tuple[int, int]]]:
    planned = rounds.plan_round(place, 1, records, PlanIndex(outputs.SHARDS, complete=True))
    return {shard: [tuple(run) for run in retried] for shard, retried in planned.shards.items()}


def test_a_round_takes_what_is_in_quarantine(place: OutputPlace):
    records = outputs.make_output(place)
    assert found(place, records) == {0: [(5, 6), (7, 8)], 1: [(49, 50)]}


def test_rows_that_were_cured_are_not_taken_again(place: OutputPlace):
    records = outputs.make_output(place)
    first = outputs.commit(place, 0, 5, 8, takes=[5, 7], bad=[7], round=1)
    place.publish(first, "parquet")
    assert found(place, [*records, first]) == {0: [(7, 8)], 1: [(49, 50)]}
    second = outputs.commit(place, 0, 7, 8, takes=[7], round=2)
    place.publish(second, "parquet")
    assert found(place, [*records, first, second]) == {1: [(49, 50)]}


def test_the_size_of_a_shard_that_the_plan_does_not_know(place: OutputPlace):
    records = outputs.make_output(place, ranges=((0, 0, 60), (0, 60, 100), (1, 0, 50)))
    dead = outputs.commit(place, 2, 0, 30, bad=range(10, 20))
    place.publish(dead, "parquet")
    planned = rounds.plan_round(place, 1, [*records, dead], PlanIndex(outputs.SHARDS, complete=True))
    assert (planned.shards[ShardId(2)].rows, list(planned.shards[ShardId(2)])) == (30, [(10, 20)])


def test_a_quarantine_object_that_is_gone(place: OutputPlace):
    records = outputs.make_output(place)
    place.remove((layout.final_name("quarantine", records[0], ""),))
    with pytest.raises(OutputError, match="is gone"):
        found(place, records)


def test_an_opened_round_comes_back(place: OutputPlace):
    opened = Round(
        3,
        {
            ShardId(4): RetriedShard(100, runs((0, 2), (50, 100))),
            ShardId(1): RetriedShard(7, runs((6, 7))),
            ShardId(9): RetriedShard(1, []),
        },
    )
    rounds.write(place, opened)
    again = rounds.read(place, 3)
    assert again.number == 3 and again.rows == 53
    assert {shard: (retried.rows, list(retried)) for shard, retried in again.shards.items()} == {
        1: (7, [(6, 7)]),
        4: (100, [(0, 2), (50, 100)]),
    }
    place.write(layout.round_name(3), b"ARROW1 cut off")
    with pytest.raises(OutputError, match="damaged"):
        rounds.read(place, 3)
    with pytest.raises(OutputError, match="gone"):
        rounds.read(place, 4)


def test_an_output_is_finished_when_its_last_round_is(place: OutputPlace):
    assert (rounds.newest(place), rounds.sealed(place), rounds.is_finished(place)) == (0, None, False)
    records = outputs.make_output(place)
    assert (rounds.newest(place), rounds.sealed(place), rounds.is_finished(place)) == (0, 0, True)
    rounds.write(place, Round(1, {}))
    assert (rounds.newest(place), rounds.sealed(place), rounds.is_finished(place)) == (1, 0, False)
    outputs.reseal(place, [*records, outputs.commit(place, 0, 5, 6, takes=[5], round=1)])
    assert (rounds.newest(place), rounds.sealed(place), rounds.is_finished(place)) == (1, 1, True)


def test_success_as_it_was_before_there_were_rounds(place: OutputPlace):
    place.write(layout.SUCCESS, b'{"rows": 1, "rows_out": 1, "rows_quarantined": 0}\n')
    assert rounds.sealed(place) == 0
    place.write(layout.SUCCESS, b"")
    with pytest.raises(OutputError, match="damaged"):
        rounds.sealed(place)

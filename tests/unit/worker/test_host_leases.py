from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np
import pyarrow as pa

from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.messages import FailureKind
from antinfer.core.plan import Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.worker.host.credits import Credits
from antinfer.worker.host.leases import Leases
from antinfer.worker.host.runs import Chunk, Run
from antinfer.worker.hostlink import Failed, Kept, Released, Sized, Work
from antinfer.worker.pipeline.pieces import Piece

NO_COLUMNS = pa.record_batch({"x": np.arange(0)})


class Scene:
    """Leases with a budget of 1000 bytes; one byte a row."""

    def __init__(self, interval: float = 3600.0) -> None:
        self.said: list[Any] = []
        self.credits = Credits(1000)
        self.leases = Leases(self.credits, self.said.append, interval)

    def start(self, n: int, start: int = 0, stop: int = 100) -> Run:
        self.leases.start(Work(LeaseId(1, n), Shard(ShardId(n), (), None, 0), Rows(start, stop)))
        run = self.leases.next_to_read()
        assert run is not None
        return run

    def feed(self, run: Run, start: int, stop: int) -> None:
        assert self.credits.try_take(stop - start)
        assert self.leases.add_chunk(run, Chunk(start, stop, stop - start, NO_COLUMNS))
        self.leases.collect(Piece(run, start, stop, None))

    def write(self, run: Run, held: int = 0) -> list[tuple[int, int]]:
        """Play the writer for one turn, whose part then holds so many bytes; return what it wrote."""
        assert self.leases.next_to_write() is run
        pieces, close = self.leases.ready(run)
        for piece in pieces:
            self.leases.wrote(run, piece, held)
        if close:
            self.leases.staged(run)
        self.leases.written(run)
        return [(piece.begin, piece.stop) for piece in pieces]

    def credit_is_back(self) -> bool:
        return self.credits.used_bytes == 0


def test_leases_are_read_in_order_and_end_when_all_is_staged() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 60)
    assert scene.write(run) == [(0, 60)] and run.staged == 0
    scene.feed(run, 60, 100)
    assert scene.write(run) == [(60, 100)] and run.staged == 100
    assert run.dropped and not scene.said and scene.credit_is_back()
    assert scene.leases.rows_done == 100


def test_leases_have_their_turn_in_the_order_in_which_they_are_read() -> None:
    scene = Scene()
    assert [scene.start(n).turn for n in (7, 3, 5)] == [1, 2, 3]


def test_what_is_to_be_computed_alone_waits_for_the_others_and_they_for_it() -> None:
    scene = Scene()
    first = scene.start(1)
    for n, alone in ((2, True), (3, True), (4, False), (5, False)):
        scene.leases.start(Work(LeaseId(1, n), Shard(ShardId(n), (), None, 0), Rows(0, 10), alone=alone))
    begun: queue.Queue[Run] = queue.Queue()

    def read() -> None:
        while (run := scene.leases.next_to_read()) is not None:
            begun.put(run)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        run = first
        for behind in ([2], [3], [4, 5]):
            scene.feed(run, 0, run.stop)
            assert begun.empty(), "all of it has to be staged first"
            scene.write(run)
            assert scene.leases.next_to_write() is run, "its writer looks at it once more when it is over"
            scene.leases.written(run)
            runs = [begun.get(timeout=10) for _ in behind]
            assert sorted(each.lease.n for each in runs) == behind
            run = runs[0]
    finally:
        scene.leases.stop()
        for reader in readers:
            reader.join(10)


def test_yield_stages_the_prefix_then_releases_and_takes_nothing_more() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 30)
    scene.leases.yield_rest(LeaseId(1, 1))
    scene.leases.collect(Piece(run, 30, 60, None))
    assert scene.write(run) == [(0, 30)]
    assert scene.said == [Released(LeaseId(1, 1))] and run.dropped and scene.credit_is_back()
    scene.leases.yield_rest(LeaseId(9, 9))
    assert scene.said[1:] == [Released(LeaseId(9, 9))]


def test_a_shared_lease_ends_where_it_is_told_or_where_the_work_has_got_to() -> None:
    scene = Scene()
    ahead, behind = scene.start(1), scene.start(2)
    scene.feed(ahead, 0, 30)
    scene.feed(behind, 0, 70)
    for n in (1, 2):
        scene.leases.yield_rest(LeaseId(1, n), keep=50)
    assert scene.said == [Kept(LeaseId(1, 1), 50), Kept(LeaseId(1, 2), 70)]
    scene.feed(ahead, 30, 80)
    assert scene.write(ahead) == [(0, 30), (30, 50)] and ahead.staged == 50 and ahead.dropped
    assert scene.write(behind) == [(0, 70)] and behind.staged == 70 and behind.dropped
    assert scene.said[2:] == [] and scene.credit_is_back()


def test_a_shorter_interval_ends_the_wait_for_a_longer_one() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 30)
    assert scene.write(run) == [(0, 30)] and run.staged == 0
    waiting = threading.Timer(0.1, scene.leases.commit_every, [0.001])
    waiting.start()
    assert scene.write(run) == [] and run.staged == 30
    assert scene.leases.reached() == ((LeaseId(1, 1), 30),)


def test_a_failed_lease_stages_its_prefix_first() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 30)
    scene.leases.fail(run, lambda lease: Failed(lease, FailureKind.STORAGE, "gone"))
    assert scene.write(run) == [(0, 30)] and run.staged == 30
    assert scene.said == [Failed(LeaseId(1, 1), FailureKind.STORAGE, "gone")]


def test_a_renamed_lease_answers_by_its_new_name() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.leases.yield_rest(LeaseId(1, 1))
    scene.leases.rename(LeaseId(1, 1), LeaseId(2, 5), 2)
    scene.write(run)
    assert scene.said == [Released(LeaseId(2, 5))]


def test_a_cut_ahead_of_the_work_trims_it() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 30)
    scene.leases.cut(LeaseId(1, 1), Rows(0, 50))
    scene.feed(run, 30, 80)
    assert scene.write(run) == [(0, 30), (30, 50)] and run.dropped and run.staged == 50
    assert scene.credit_is_back()


def test_a_cut_into_the_work_begins_anew() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 30)
    scene.leases.cut(LeaseId(1, 1), Rows(10, 20))
    assert run.dropped and scene.credit_is_back()
    again = scene.leases.next_to_read()
    assert again is not None and again is not run
    assert (again.start, again.stop, again.lease) == (10, 20, LeaseId(1, 1))


def test_an_empty_cut_forgets_the_lease() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 30)
    scene.leases.cut(LeaseId(1, 1), Rows(0, 0))
    assert run.dropped and scene.credit_is_back() and not scene.said


def test_the_size_of_a_shard_is_said_before_its_end_can_be_staged() -> None:
    scene = Scene()
    run = scene.start(1, 0, UNSIZED)
    scene.feed(run, 0, 30)
    assert scene.write(run) == [(0, 30)] and not run.dropped
    scene.leases.size(run, 30)
    assert scene.said == [Sized(LeaseId(1, 1), 30)]
    assert scene.write(run) == [] and run.dropped and run.staged == 30

    empty = scene.start(2, 0, UNSIZED)
    scene.leases.size(empty, 0)
    assert scene.said[1:] == [Sized(LeaseId(1, 2), 0)] and empty.dropped


def test_an_open_part_is_staged_after_the_interval() -> None:
    scene = Scene(interval=0.0)
    run = scene.start(1)
    scene.feed(run, 0, 30)
    assert scene.write(run) == [(0, 30)]
    # The part is due at once, so there is something to write although no piece came.
    assert scene.write(run) == [] and run.staged == 30 and not run.dropped


def test_credit_shrinks_to_what_the_open_part_holds_and_the_rest_comes_back_when_it_is_staged() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 60)
    assert scene.credits.used_bytes == 60
    assert scene.write(run, held=25) == [(0, 60)] and scene.credits.used_bytes == 25
    scene.feed(run, 60, 100)
    assert scene.write(run, held=40) == [(60, 100)] and scene.credits.used_bytes == 0


def test_credit_comes_back_from_a_part_that_is_given_up() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 60)
    scene.write(run, held=25)
    scene.leases.cut(LeaseId(1, 1), Rows(50, 100))
    assert run.dropped and scene.credits.used_bytes == 0


def test_parts_that_hold_too_much_are_committed_early_the_largest_first() -> None:
    scene = Scene()
    runs = [scene.start(n) for n in range(3)]
    for run, held in zip(runs, (200, 290, 10), strict=True):
        scene.feed(run, 0, 20)
        assert scene.write(run, held) == [(0, 20)]
    assert not any(run.staged for run in runs), "500 of 1000 bytes are no trouble"
    scene.feed(runs[2], 20, 40)
    assert scene.write(runs[2], held=11) == [(20, 40)] and scene.credits.used_bytes == 501
    assert scene.write(runs[1]) == [] and runs[1].staged == 20 and scene.credits.used_bytes == 211
    scene.feed(runs[2], 40, 60)
    assert scene.write(runs[2], held=700) == [(40, 60)] and runs[2].staged == 0
    assert scene.write(runs[2]) == [] and runs[2].staged == 60, "a writer commits the part that it is at in its next turn"
    assert scene.credits.used_bytes == 200


def test_what_open_parts_hold_stops_no_reader_when_nothing_else_moves() -> None:
    credits = Credits(1000)
    credits.hold(5000)
    assert credits.try_take(10) and not credits.try_take(10)
    credits.give_back(10)
    credits.hold(-4500)
    assert credits.try_take(300) and credits.try_take(200) and not credits.try_take(1)


def test_stop_ends_all_waits() -> None:
    scene = Scene()
    run = scene.start(1)
    assert scene.credits.try_take(1000)
    seen: list[Any] = []
    threads = [
        threading.Thread(target=lambda: seen.append(scene.leases.next_to_read())),
        threading.Thread(target=lambda: seen.append(scene.credits.take(10, lambda: run.dropped) or None)),
    ]
    for thread in threads:
        thread.start()
    scene.leases.stop()
    for thread in threads:
        thread.join(10)
    assert seen == [None, None]


def test_a_demand_above_all_credit_is_admitted_alone() -> None:
    credits = Credits(10)
    assert credits.try_take(50) and not credits.try_take(1)
    credits.give_back(50)
    assert credits.try_take(1) and not credits.try_take(50)


def test_a_cut_trims_what_waits_for_earlier_rows() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 40, 80)
    scene.feed(run, 80, 100)
    scene.leases.cut(LeaseId(1, 1), Rows(0, 50))
    scene.feed(run, 0, 40)
    assert scene.write(run) == [(0, 40), (40, 50)] and run.staged == 50 and run.dropped
    assert scene.credit_is_back()


def test_a_cut_in_the_middle_of_a_writers_turn_ends_it() -> None:
    scene = Scene()
    run = scene.start(1)
    scene.feed(run, 0, 30)
    scene.feed(run, 30, 60)
    assert scene.leases.next_to_write() is run
    (first, second), _ = scene.leases.ready(run)
    chunk = scene.leases.chunk_of(run, first)
    assert chunk is not None and (chunk.start, chunk.stop) == (0, 30)
    scene.leases.wrote(run, first, 0)
    scene.leases.cut(LeaseId(1, 1), Rows(0, 0))
    assert scene.leases.chunk_of(run, second) is None
    scene.leases.written(run)
    assert scene.credit_is_back()

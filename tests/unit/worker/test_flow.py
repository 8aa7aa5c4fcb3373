"""The flow without processes: batches are taken and finished by hand, or by plain threads."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline import unify
from antinfer.worker.pipeline.assembler import Assembled, BatchLimits
from antinfer.worker.pipeline.graph import Call, Close, Node
from antinfer.worker.pipeline.pieces import BadRow, Piece, Root
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall


def call(rows: int, kind: str = "predict") -> Call:
    return Call(StageCall(f"{kind}-{rows}", kind, "m:f", ""), BatchLimits(rows), 1, in_processes=False)


def piece(root: Root, begin: int, rows: int) -> Piece:
    return Piece(root, begin, begin + rows, pa.record_batch({"x": np.arange(begin, begin + rows)}))


def make(*nodes: Node) -> tuple[Flow, list[Piece]]:
    found: list[Piece] = []
    return Flow(nodes, found.append), found


def batch_of(taken: Assembled | None) -> pa.RecordBatch:
    assert taken is not None
    return taken.batch(lambda batch: batch)


def test_a_ragged_batch_waits_for_those_who_read() -> None:
    flow, _ = make(call(10))
    taken: list[Assembled | None] = []
    thread = threading.Thread(target=lambda: taken.append(flow.take(0)))
    with flow.reading():
        flow.put(piece(Root(0), 0, 4))
        thread.start()
        flow.put(piece(Root(0), 0, 6))
    thread.join(10)
    # Had it not waited, it would have got 4 rows.
    assert batch_of(taken[0]).num_rows == 10


def test_a_ragged_batch_comes_out_when_nothing_can_add_to_it() -> None:
    flow, found = make(call(10))
    flow.put(piece(Root(0), 0, 4))
    taken = flow.take(0)
    assert batch_of(taken).num_rows == 4
    assert taken is not None
    flow.finish(0, taken, Outcome(pa.record_batch({"y": np.arange(4)})), 0.5)
    assert [part.rows for part in found] == [4] and [stats.busy_seconds for stats in flow.statistics()] == [0.5]


def test_an_earlier_stage_at_work_holds_a_ragged_batch_back() -> None:
    flow, found = make(call(2), call(10))
    for begin in (0, 2):
        flow.put(piece(Root(0), begin, 2))
    first, second = flow.take(0), flow.take(0)
    assert first is not None and second is not None
    flow.finish(0, first, Outcome(batch_of(first)), 0.0)
    hurry = threading.Event()
    hurry.set()
    # Nothing to take yet: `take` returns at once because it is told to, and without a batch.
    assert flow.take(1, wake=hurry.is_set) is None
    flow.finish(0, second, Outcome(batch_of(second)), 0.0)
    last = flow.take(1)
    assert batch_of(last).num_rows == 4 and not found


def test_pieces_without_rows_pass_every_stage_and_open_empty_groups() -> None:
    flow, found = make(call(2), call(2, "flat_map"), call(2), Close("gather", "c"))
    root = Root(0)
    flow.put(Piece(root, 0, 5, None))
    (home,) = found
    assert (home.scope, home.begin, home.stop, home.rows) == (root, 0, 5, 0)


def test_dropped_leases_do_not_come_out() -> None:
    flow, found = make(call(2))
    root = Root(0)
    flow.put(piece(root, 0, 2))
    taken = flow.take(0)
    assert taken is not None
    root.dropped = True
    flow.finish(0, taken, Outcome(batch_of(taken)), 0.0)
    assert not found


def test_results_of_another_type_are_refused() -> None:
    flow, found = make(call(2))
    for _ in range(2):
        flow.put(piece(Root(0), 0, 2))
    first, second = flow.take(0), flow.take(0)
    assert first is not None and second is not None
    flow.finish(0, first, Outcome(pa.record_batch({"y": [1, 2]})), 0.0)
    with pytest.raises(UserCodeError, match="'y'"):
        flow.finish(0, second, Outcome(pa.record_batch({"y": [1.0, 2.0]})), 0.0)
    assert len(found) == 1


def test_stop_ends_every_wait() -> None:
    flow, _ = make(call(10))
    taken: list[Assembled | None] = []
    threads = [threading.Thread(target=lambda: taken.append(flow.take(0))) for _ in range(3)]
    for thread in threads:
        thread.start()
    flow.stop()
    for thread in threads:
        thread.join(10)
    assert taken == [None] * 3


def test_a_queue_of_nothing_but_dropped_leases_does_not_hold_a_later_stage_back() -> None:
    flow, _ = make(call(10), call(10))
    flow.put(piece(Root(0), 0, 4))
    first = flow.take(0)
    assert first is not None
    gone = Root(0)
    flow.put(piece(gone, 0, 3))
    flow.finish(0, first, Outcome(batch_of(first)), 0.0)
    taken: list[Assembled | None] = []
    later = threading.Thread(target=lambda: taken.append(flow.take(1)))
    later.start()
    gone.dropped = True
    # The first stage finds nothing to do; the second one has to hear that nothing comes any more.
    earlier = threading.Thread(target=flow.take, args=(0,))
    earlier.start()
    later.join(10)
    assert taken and batch_of(taken[0]).num_rows == 4
    flow.stop()
    earlier.join(10)


def test_a_batch_is_not_offered_to_one_who_wants_none() -> None:
    flow, _ = make(call(4))
    hurry = threading.Event()
    taken: list[Assembled | None] = []
    busy = threading.Thread(target=lambda: flow.take(0, want=False, wake=hurry.is_set))
    idle = threading.Thread(target=lambda: taken.append(flow.take(0)))
    # The busy one waits first, so it would be the first to be woken.
    busy.start()
    idle.start()
    flow.put(piece(Root(0), 0, 4))
    idle.join(10)
    assert taken and batch_of(taken[0]).num_rows == 4
    hurry.set()
    flow.wake_up(0)
    busy.join(10)
    assert not busy.is_alive()


def test_batches_of_large_rows_are_as_full_as_the_user_wants_them() -> None:
    flow, _ = make(call(100))
    row = 1 << 20
    taken: list[Assembled | None] = []
    with flow.reading():
        for begin in range(0, 100, 10):
            assert flow._delay(0) is None
            flow.put(Piece(Root(0), begin, begin + 10, pa.record_batch({"x": pa.array([bytes(row)] * 10)})))
        taken.append(flow.take(0))
    assert taken[0] is not None and taken[0].rows == 100


def test_groups_without_children_take_the_type_of_those_with() -> None:
    flow, found = make(call(4, "flat_map"), Close("gather", "c"))
    for begin in (0, 4, 8):
        flow.put(piece(Root(0), begin, 4))
        taken = flow.take(0)
        assert taken is not None
        some = Outcome(pa.record_batch({"y": [1.5]}), np.array([2])) if begin == 4 else Outcome(None, np.empty(0, np.int64))
        flow.finish(0, taken, some, 0.0)
    before, between, after = (part.batch for part in found)
    assert before is not None and between is not None and after is not None
    assert before.to_pydict() == after.to_pydict() == {"c": [[]] * 4}
    assert after.schema == between.schema
    # The first one came too early to know.
    assert unify.concat([before, between, after]).schema == between.schema


@pytest.mark.parametrize("limits", [BatchLimits(8), BatchLimits(8, whole=True)], ids=["filled", "whole"])
def test_what_was_not_run_of_a_batch_comes_again_before_all_others(limits: BatchLimits) -> None:
    flow, found = make(replace(call(8, "flat_map"), limits=limits), Close("flatten", ""))
    root = Root(0)
    for begin, rows in ((0, 8), (8, 4)):
        flow.put(piece(root, begin, rows))
    seen: list[int] = []
    while not found or found[-1].stop < 12:
        taken = flow.take(0)
        xs = batch_of(taken)["x"].to_numpy()
        ran = min(3, len(xs))
        seen += xs[:ran].tolist()
        made = pa.record_batch({"y": np.repeat(xs[:ran], 2)})
        assert taken is not None
        flow.finish(0, taken, Outcome(made, np.repeat(np.arange(ran), 2), ran=ran if ran < len(xs) else None), 0.0)
    assert seen == list(range(12))
    assert [value for part in found if part.batch is not None for value in part.batch["y"].to_pylist()] == np.repeat(seen, 2).tolist()
    assert [part.begin for part in found] == [0, *(part.stop for part in found[:-1])]
    (stats, _) = flow.statistics()
    assert (stats.rows_in, stats.rows_done, stats.rows_out, stats.queue_rows, stats.queue_bytes) == (12, 12, 24, 0, 0)


def test_rows_that_were_given_up_are_those_of_what_was_run() -> None:
    flow, found = make(call(8, "flat_map"), Close("gather", "c"))
    root = Root(0)
    flow.put(piece(root, 0, 8))
    first = flow.take(0)
    assert first is not None
    flow.finish(0, first, Outcome(pa.record_batch({"y": [0]}), np.array([0]), [(1, BadRow("no"))], ran=2), 0.0)
    second = flow.take(0)
    assert batch_of(second)["x"].to_pylist() == list(range(2, 8))
    assert second is not None
    flow.finish(0, second, Outcome(None, np.empty(0, np.int64), [(5, BadRow("no"))]), 0.0)
    assert sorted(root.bad) == [1, 7]
    assert [(part.begin, part.stop, part.rows) for part in found] == [(0, 2, 1), (2, 8, 5)]

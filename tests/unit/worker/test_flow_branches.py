"""The flow where it is more than a chain: branches, conditions, statistics. Batches are taken and finished by hand."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.spec.schema import JobSpec
from antinfer.worker.host import flow as flows
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.pieces import BadRow, Root, without_bad
from antinfer.worker.pipeline.splitter import Outcome
from tests.unit.worker.flowhands import at, make, piece, run, took

BRANCHES = {"parallel": {"a": [{"predict": "m:A", "batch_size": 4}], "b": [{"predict": "m:B", "batch_size": 6}]}}


def test_a_piece_comes_out_when_all_branches_are_done_with_it() -> None:
    flow, found = make(BRANCHES)
    flow.put(piece(Root(0), 0, 8))
    run(flow, "A", lambda batch: pa.record_batch({"a": batch["x"]}))
    run(flow, "B", lambda batch: pa.record_batch({"b": batch["x"]}))
    run(flow, "B", lambda batch: pa.record_batch({"b": batch["x"]}))
    assert not found
    run(flow, "A", lambda batch: pa.record_batch({"a": batch["x"]}))
    (home,) = found
    assert home.batch is not None and home.batch.to_pydict() == {"a": list(range(8)), "b": list(range(8))}


def test_a_row_given_up_in_one_branch_is_given_up_whole() -> None:
    flow, found = make(BRANCHES)
    root = Root(0)
    flow.put(piece(root, 0, 4))
    run(flow, "A", lambda batch: pa.record_batch({"a": batch["x"]}))
    call = took(flow, "B")
    bad = Outcome(pa.record_batch({"b": [0, 1, 3]}), np.array([0, 1, 3]), [(2, BadRow("broken"))])
    flow.finish(at(flow, "B"), call, bad, 0.0)
    (home,) = found
    assert without_bad(home).batch.to_pydict() == {"a": [0, 1, 3], "b": [0, 1, 3]}  # type: ignore[union-attr]
    assert list(root.bad) == [2]


def test_a_busy_branch_does_not_hold_a_ragged_batch_of_the_other_back() -> None:
    flow, _ = make(BRANCHES)
    flow.put(piece(Root(0), 0, 2))
    held = took(flow, "A")
    # Were A an ancestor of B, this would wait for ever.
    assert took(flow, "B").rows == held.rows == 2


def test_a_full_branch_holds_the_call_before_the_fork_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_QUEUE_BYTES", 1)
    flow, _ = make({"map_batches": "m:first", "batch_size": 2}, BRANCHES)
    flow.put(piece(Root(0), 0, 30))
    first = at(flow, "first")

    def run_while_there_is_room() -> tuple[int, int]:
        while flow._delay(first) == 0.0:
            run(flow, "first", lambda batch: batch)
        stats = flow.statistics()
        return stats[at(flow, "A")].queue_rows, stats[at(flow, "B")].queue_rows

    # Two batches of A, the smaller ones, and no more.
    assert run_while_there_is_room() == (8, 8)
    run(flow, "A", lambda batch: pa.record_batch({"a": batch["x"]}))
    assert run_while_there_is_room() == (8, 12)
    run(flow, "A", lambda batch: pa.record_batch({"a": batch["x"]}))
    assert run_while_there_is_room() == (4, 12)
    run(flow, "B", lambda batch: pa.record_batch({"b": batch["x"]}))
    assert run_while_there_is_room() == (8, 10)


CASCADE = {"predict": "m:Big", "when": "hard", "batch_size": 4}


def test_rows_skip_a_stage_whose_condition_is_not_true() -> None:
    flow, found = make(CASCADE)
    flow.put(piece(Root(0), 0, 4, label=["a", "b", "c", "d"], hard=[True, False, None, True]))
    seen = run(flow, "Big", lambda batch: pa.record_batch({"label": ["A", "D"], "score": [0.5, 0.7]}))
    assert seen["x"].to_pylist() == [0, 3]
    (home,) = found
    assert home.batch is not None and home.batch.schema.names == ["x", "label", "hard", "score"]
    assert home.batch["label"].to_pylist() == ["A", "b", "c", "D"]
    assert home.batch["score"].to_pylist() == [0.5, None, None, 0.7]


def test_pieces_wait_for_the_first_row_that_tells_which_columns_are_added() -> None:
    flow, found = make(CASCADE)
    root = Root(0)
    flow.put(piece(root, 0, 2, hard=[False, False]))
    assert not found
    flow.put(piece(root, 2, 2, hard=[False, True]))
    run(flow, "Big", lambda batch: pa.record_batch({"score": [0.5]}))
    assert sorted((home.begin, home.batch["score"].to_pylist()) for home in found if home.batch is not None) == [
        (0, [None, None]),
        (2, [None, 0.5]),
    ]


def test_when_no_row_goes_through_a_stage_the_user_is_asked_what_it_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_ASKING_SECONDS", 0.01)
    flow, found = make(CASCADE)
    flow.put(piece(Root(0), 0, 2, hard=[False, False]))
    with pytest.raises(UserCodeError, match="stage 'Big': none of the rows at hand goes through it") as caught:
        flow.take(at(flow, "Big"))
    assert "adds: [column, ...]" in caught.value.hint and not found


def test_columns_that_the_user_named_are_there_without_any_row() -> None:
    flow, found = make({**CASCADE, "adds": ["score"]})
    flow.put(piece(Root(0), 0, 2, hard=[False, False]))
    (home,) = found
    assert home.batch is not None and home.batch.to_pydict()["score"] == [None, None]


def test_waiting_is_counted_by_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_QUEUE_BYTES", 1)
    flow, _ = make({"map_batches": "m:f", "batch_size": 2}, {"predict": "m:P", "batch_size": 2})
    first, second = at(flow, "f"), at(flow, "P")
    flow.put(piece(Root(0), 0, 12))
    while flow._delay(first) == 0.0:
        run(flow, "f", lambda batch: batch)
    hurry = threading.Event()
    threads = [threading.Thread(target=flow.take, args=(first,), kwargs={"wake": hurry.is_set}) for _ in range(2)]
    for thread in threads:
        thread.start()
    while flow._wakers[first]._waiters.__len__() < 2:  # type: ignore[attr-defined]
        threading.Event().wait(0.001)
    hurry.set()
    flow.wake_up(first)
    for thread in threads:
        thread.join(10)
    one, other = flow.statistics()[first], flow.statistics()[second]
    assert one.blocked_seconds > 0 and one.starved_seconds == 0
    assert (one.rows_in, one.rows_out, one.batches) == (4, 4, 2)
    assert (other.queue_rows, other.queue_bytes > 0) == (4, True)


def test_the_size_of_batches_can_be_changed_unless_they_are_to_be_reproduced() -> None:
    flow, _ = make({"predict": "m:P", "batch_size": 4})
    flow.put(piece(Root(0), 0, 8))
    assert flow.set_batch_rows(0, 3) and flow.batch_rows(0) == 3
    assert took(flow, "P").rows == 3
    spec = {"source": {"type": "text", "path": "/i"}, "pipeline": [{"predict": "m:P", "batch_size": 4}], "sink": {"path": "/o"}}
    fixed = Flow(graph.build(JobSpec.model_validate({**spec, "reproducible": True}), 1), print)
    assert not fixed.set_batch_rows(1, 3) and fixed.batch_rows(1) == 4

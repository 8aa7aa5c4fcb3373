"""The flow where it is more than a chain: branches, conditions, hybrid stages, statistics. Batches are taken and finished by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.errors import UserCodeError
from antinfer.spec.schema import JobSpec
from antinfer.worker.host import flow as flows
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.pieces import BadRow, Piece, Root, without_bad
from antinfer.worker.pipeline.splitter import Outcome


def make(*stages: dict[str, Any]) -> tuple[Flow, list[Piece]]:
    source, sink = {"type": "parquet", "path": "/in"}, {"path": "/out"}
    spec = JobSpec.model_validate({"source": source, "pipeline": stages, "sink": sink})
    found: list[Piece] = []
    return Flow(graph.build(spec, 1), found.append), found


def at(flow: Flow, name: str) -> int:
    return next(index for index, node in enumerate(flow.nodes) if isinstance(node, graph.Call) and node.name == name)


def piece(root: Root, begin: int, rows: int, **columns: Any) -> Piece:
    return Piece(root, begin, begin + rows, pa.record_batch({"x": np.arange(begin, begin + rows), **columns}))


def took(flow: Flow, name: str) -> Assembled:
    call = flow.take(at(flow, name))
    assert call is not None
    return call


def batch_of(call: Assembled) -> pa.RecordBatch:
    return call.batch(lambda batch: batch)


def run(flow: Flow, name: str, work: Callable[[pa.RecordBatch], pa.RecordBatch]) -> pa.RecordBatch:
    call = took(flow, name)
    batch = batch_of(call)
    flow.finish(at(flow, name), call, Outcome(work(batch)), 0.0)
    return batch


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


HYBRID = {"map_batches": "m:cpu", "on_gpu": "m:Gpu", "batch_size": 4}
MODEL = {"predict": "m:Model", "num_gpus": 1, "batch_size": 8}


def test_a_predictor_takes_decoded_rows_first_and_raw_ones_when_there_are_none() -> None:
    flow, found = make(HYBRID, MODEL)
    flow.put(piece(Root(0), 0, 24))
    for _ in range(2):
        run(flow, "cpu", lambda batch: pa.record_batch({"y": batch["x"]}))
    first, second = took(flow, "Model"), took(flow, "Model")
    assert (first.fused, batch_of(first).schema.names, first.rows) == (False, ["y"], 8)
    assert (second.fused, batch_of(second).schema.names, second.rows) == (True, ["x"], 8)
    assert all(half.fused for half in second.halves())
    for call in (second, first):
        flow.finish(at(flow, "Model"), call, Outcome(pa.record_batch({"z": batch_of(call).column(0)})), 0.0)
    assert sorted(value for home in found if home.batch is not None for value in home.batch["z"].to_pylist()) == list(range(16))
    model = flow.statistics()[at(flow, "Model")]
    assert (model.rows_in, model.fused_rows, model.batches) == (16, 8, 2)


def test_a_predictor_that_waits_hears_of_raw_rows() -> None:
    flow, _ = make(HYBRID, MODEL)
    taken: list[Assembled | None] = []
    thread = threading.Thread(target=lambda: taken.append(flow.take(at(flow, "Model"))))
    thread.start()
    with flow.reading():
        flow.put(piece(Root(0), 0, 8))
        thread.join(10)
    assert taken and taken[0] is not None and taken[0].fused


@pytest.mark.parametrize(("share", "fused"), [(0, 0), (0.25, 2), (1, 8)])
def test_the_share_of_raw_batches_is_bounded(share: float, fused: int) -> None:
    flow, _ = make({**HYBRID, "gpu_share": share, "batch_size": 8}, MODEL)
    hurry = threading.Event()
    hurry.set()
    seen = 0
    for begin in range(0, 64, 8):
        flow.put(piece(Root(0), begin, 8))
        if flow._next(at(flow, "Model"))[0] is None:
            run(flow, "cpu", lambda batch: pa.record_batch({"y": batch["x"]}))
        call = took(flow, "Model")
        seen += call.fused
        flow.finish(at(flow, "Model"), call, Outcome(batch_of(call).select([0]).rename_columns(["z"])), 0.0)
    assert seen == fused
    if share == 1:
        assert flow._delay(at(flow, "cpu")) is None


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

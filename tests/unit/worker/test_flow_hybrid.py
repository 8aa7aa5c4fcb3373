"""A predictor behind a hybrid stage: which rows it takes, and what is counted. Batches are taken and finished by hand."""

from __future__ import annotations

import threading

import pyarrow as pa
import pytest

from antinfer.worker.host import flow as flows
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.pieces import Root
from antinfer.worker.pipeline.splitter import Outcome
from tests.unit.worker.flowhands import at, batch_of, make, piece, run, took

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


def decode(flow: Flow, batches: int = 1) -> None:
    for _ in range(batches):
        run(flow, "cpu", lambda batch: pa.record_batch({"y": batch["x"]}))


def answer(flow: Flow, call: Assembled, seconds: float = 0.0) -> None:
    flow.finish(at(flow, "Model"), call, Outcome(batch_of(call).select([0]).rename_columns(["z"])), seconds)


def test_where_both_kinds_wait_the_aim_says_which_goes_first() -> None:
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    flow.put(piece(Root(0), 0, 320))
    decode(flow, 20)
    flow.aim(at(flow, "Model"), 0.25)
    assert [took(flow, "Model").fused for _ in range(12)] == [False, False, True, False] * 3
    flow.aim(at(flow, "Model"), 1.0)
    assert [took(flow, "Model").fused for _ in range(3)] == [True] * 3
    flow.aim(at(flow, "Model"), 0.0)
    assert [took(flow, "Model").fused for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("aim", [0.0, 0.5, 1.0])
def test_no_predictor_waits_for_its_turn(aim: float) -> None:
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    flow.aim(at(flow, "Model"), aim)
    flow.put(piece(Root(0), 0, 32))
    assert [took(flow, "Model").fused for _ in range(2)] == [True] * 2, "only raw rows are there"
    decode(flow, 2)
    assert [took(flow, "Model").fused for _ in range(2)] == [False] * 2, "only ready rows are there"


def test_ready_rows_go_first_when_the_cores_wait_for_them_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "_QUEUE_BYTES", 2 * 8 * 8)
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    flow.put(piece(Root(0), 0, 64))
    flow.aim(at(flow, "Model"), 1.0)
    decode(flow, 2)
    assert flow._delay(at(flow, "cpu")) is None
    assert [took(flow, "Model").fused for _ in range(3)] == [False, True, True]
    assert flow._delay(at(flow, "cpu")) == 0.0


def test_what_is_under_way_may_keep_a_predictor_from_raw_rows_but_not_from_ready_ones() -> None:
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    model, raw = at(flow, "Model"), (0.0, at(flow, "cpu"))
    flow.put(piece(Root(0), 0, 128))
    took(flow, "Model")
    assert flow._next(model, 4) == raw, "there is no aim yet"
    flow.aim(model, 0.1)
    assert flow._next(model, 2) == raw and flow._next(model, 3)[0] is None
    took(flow, "Model")
    assert flow._next(model, 0) == raw and flow._next(model, 1)[0] is None
    decode(flow)
    assert flow._next(model, 4) == (0.0, model)


@pytest.mark.parametrize(("rows", "starves"), [(32, False), (8, True)], ids=["raw rows are there", "no rows are there"])
def test_one_that_computes_and_is_to_leave_raw_rows_alone_does_not_starve(rows: int, starves: bool) -> None:
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    model = at(flow, "Model")
    flow.put(piece(Root(0), 0, rows))
    flow.aim(model, 0.0)
    took(flow, "Model")
    with flow._lock:
        flow._wait(model, 0.01, owed=1)
    assert (flow.statistics()[model].starved_seconds > 0) is starves


def test_one_that_turns_to_raw_rows_passes_the_word_of_ready_ones_on(monkeypatch: pytest.MonkeyPatch) -> None:
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    model, told = at(flow, "Model"), []
    flow.put(piece(Root(0), 0, 32))
    flow.aim(model, 1.0)
    decode(flow)
    monkeypatch.setattr(flow._wakers[model], "notify", lambda: told.append(model))
    assert took(flow, "Model").fused
    assert told == [model]


def test_one_that_waits_for_ready_rows_hears_of_a_new_aim() -> None:
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    model = at(flow, "Model")
    flow.aim(model, 0.0)
    flow.put(piece(Root(0), 0, 32))
    taken: list[Assembled | None] = []
    for _ in range(2):
        took(flow, "Model")
    thread = threading.Thread(target=lambda: taken.append(flow.take(model, owed=2)))
    thread.start()
    flow.aim(model, 1.0)
    thread.join(10)
    assert taken and taken[0] is not None and taken[0].fused


def test_raw_batches_are_counted_apart() -> None:
    flow, _ = make({**HYBRID, "batch_size": 8}, MODEL)
    flow.put(piece(Root(0), 0, 24))
    decode(flow)
    ready, raw = took(flow, "Model"), took(flow, "Model")
    answer(flow, raw, 3.0)
    answer(flow, ready, 1.0)
    model = flow.statistics()[at(flow, "Model")]
    assert (model.rows_done, model.batches, model.busy_seconds) == (16, 2, 4.0)
    assert (model.fused_done, model.fused_batches, model.fused_seconds) == (8, 1, 3.0)

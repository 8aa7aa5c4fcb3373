from __future__ import annotations

import gc
import os
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from antinfer.errors import InfraError, UserCodeError
from antinfer.worker.calls import Caller, Fault, select_columns
from antinfer.worker.layout import divide
from antinfer.worker.pipeline.stagecalls import Standing
from antinfer.worker.shm import Slab, SlabWriter

CODE = """
import numpy as np

class Model:
    log = []
    def __init__(self, bad=(), turn=None):
        self.bad, self.turn, self.calls = set(bad), turn, 0
        self.log.append("built")
    def setup(self):
        self.log.append("setup")
    def teardown(self):
        self.log.append("teardown")
    def __call__(self, batch):
        self.calls += 1
        batch["x"] += 1
        if {x - 1 for x in batch["x"].tolist()} & self.bad:
            raise ValueError("bad row")
        return {"y": batch["x"] * 2}

def add(batch, n=1):
    return {"y": batch["x"] + n}

def halves(batch):
    middle = len(batch["x"]) // 2
    yield {"y": batch["x"][:middle]}
    yield {"y": batch["x"][middle:]}

def nothing(batch):
    return iter(())

def row_spread(row):
    if row["x"] == 3:
        raise KeyError("three")
    return ({"c": row["x"]} for _ in range(int(row["x"])))

def one_dict(row):
    return {"c": 1}

def odd(row):
    return row["x"] % 2

def fails(batch):
    raise RuntimeError("never works")

class Fetches:
    def __init__(self, at="setup"):
        self.at = at
    def fetch(self, at):
        if at == self.at:
            from antinfer import InfraError
            raise InfraError("the store is away", hint="Wait.")
    def setup(self):
        self.fetch("setup")
    def teardown(self):
        self.fetch("teardown")
    def __call__(self, batch):
        return batch

class Float16:
    def __str__(self):
        return "torch.float16"

class Precise:
    def __init__(self, dtype=None):
        self.dtype = Float16() if dtype == "object" else dtype
    def __call__(self, batch):
        return batch

class Reuses:
    # Fills one array in every call, as a model does that writes into a fixed buffer.
    def __init__(self, bad=(), parts=1):
        self.out = np.zeros(64, dtype=np.int64)
        self.bad, self.parts = set(bad), parts
    def __call__(self, batch):
        if self.bad & set(batch["x"].tolist()):
            raise ValueError("bad row")
        if self.parts == 1:
            return self.fill(batch["x"])
        return (self.fill(x) for x in np.array_split(batch["x"], self.parts))
    def fill(self, x):
        view = self.out[: len(x)]
        view[:] = x * 2
        return {"y": view}

class Overlaps:
    # Fills one of two arrays in turn: results are valid until the next but one batch is submitted.
    def __init__(self, bad=(), late=False, hungry=0, named=False):
        self.bad, self.late, self.hungry, self.named = set(bad), late, hungry, named
        self.out, self.turn = np.zeros((2, 64), dtype=np.int64), 0
        self.open, self.most, self.sizes, self.writable = [], 0, [], set()
    def submit(self, batch):
        x = batch["x"]
        self.writable.add(x.flags.writeable)
        self.sizes.append(len(x))
        if self.hungry and len(x) > self.hungry:
            raise MemoryError("too many rows")
        if not self.late:
            self.check(x)
        self.turn = 1 - self.turn
        self.out[self.turn, : len(x)] = x * 2
        ticket = (len(self.sizes), self.out[self.turn, : len(x)], x)
        self.open.append(ticket)
        self.most = max(self.most, len(self.open))
        return ticket
    def check(self, x):
        guilty = [row for row, value in enumerate(x.tolist()) if value in self.bad]
        if guilty and self.named:
            from antinfer import BadRows
            raise BadRows({row: f"{x[row]} is bad" for row in guilty})
        if guilty:
            raise ValueError("bad row")
    def collect(self, ticket):
        assert self.open.pop(0) is ticket, "out of order"
        self.check(ticket[2])
        return {"y": ticket[1]}

class Front:
    def __init__(self, lacks=""):
        self.lacks = lacks
    def setup(self):
        assert not hasattr(self, "is_checked")
    def setup_on_gpu(self):
        self.is_checked = True
        if self.lacks:
            from antinfer import UserCodeError
            raise UserCodeError(f"there is no {self.lacks}")
    def submit(self, batch):
        return {"x": batch["raw"] + 100, "other": batch["raw"]}
    def __call__(self, batch):
        raise AssertionError("not on the CPU")

class NotCallable:
    pass

class BadInit:
    def __init__(self):
        raise OSError("no file")
"""


def xs(count: int) -> pa.RecordBatch:
    return pa.record_batch({"x": np.arange(count)})


def test_a_class_is_built_set_up_called_and_torn_down(stage: Any) -> None:
    call = stage("Model", args={"bad": []})
    caller = Caller(call, copy=True)
    outcome = caller.run(xs(3))
    caller.close()
    assert outcome.batch is not None and outcome.batch["y"].to_pylist() == [2, 4, 6]
    assert outcome.rows is None and not outcome.bad
    log = sys.modules[call.target.partition(":")[0]].Model.log
    assert log == ["built", "setup", "teardown"]


def test_a_function_takes_its_arguments_and_may_yield(stage: Any) -> None:
    made = Caller(stage("add", args={"n": 10}), copy=True).run(xs(2)).batch
    assert made is not None and made["y"].to_pylist() == [10, 11]
    made = Caller(stage("halves"), copy=True).run(xs(5)).batch
    assert made is not None and made["y"].to_pylist() == [0, 1, 2, 3, 4]
    with pytest.raises(UserCodeError, match="5 rows and returned 0"):
        Caller(stage("nothing"), copy=True).run(xs(5))


@given(st.sets(st.integers(0, 49)), st.integers(1, 50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_exactly_the_bad_rows_are_found(stage: Any, bad: set[int], rows: int) -> None:
    outcome = Caller(stage("Model", args={"bad": sorted(bad)}, tolerant=True), copy=True).run(xs(rows))
    guilty = sorted(row for row in bad if row < rows)
    good = [row for row in range(rows) if row not in bad]
    assert sorted(row for row, _ in outcome.bad or []) == guilty
    assert ([] if outcome.batch is None else outcome.batch["y"].to_pylist()) == [2 * (row + 1) for row in good]
    assert (good if outcome.rows is None else outcome.rows.tolist()) == good
    for _, reason in outcome.bad or []:
        assert reason.error == "ValueError: bad row" and reason.stage == "Model"
        assert reason.traceback.startswith("Traceback") and "calls.py" not in reason.traceback


def test_code_that_works_for_no_row_is_given_up_unless_the_job_tolerates_it(stage: Any) -> None:
    with pytest.raises(UserCodeError, match="every row so far") as caught:
        Caller(stage("fails"), copy=True).run(xs(1000))
    assert "never works" in caught.value.user_traceback
    assert len(Caller(stage("fails", tolerant=True), copy=True).run(xs(100)).bad or []) == 100
    # Few rows may all be bad.
    assert len(Caller(stage("fails"), copy=True).run(xs(5)).bad or []) == 5


def test_one_result_clears_all_copies_of_a_stage_for_good(stage: Any) -> None:
    shared, call = Standing(), stage("Model", args={"bad": list(range(100))})
    Caller(call, copy=True, standing=shared).run(xs(101))
    # A thread that joins, or a process that is started again, meets the bad rows first.
    outcome = Caller(call, copy=True, standing=shared).run(xs(100))
    assert outcome.batch is None and len(outcome.bad or []) == 100


def test_copies_of_a_stage_add_up_rows_that_fail_alike(stage: Any) -> None:
    shared = Standing()
    for _ in range(3):
        Caller(stage("fails"), copy=True, standing=shared).run(xs(10))
    with pytest.raises(UserCodeError, match="every row so far") as caught:
        Caller(stage("fails"), copy=True, standing=shared).run(xs(10))
    assert caught.value.hopeless


def test_rows_are_spread_and_filtered(stage: Any) -> None:
    outcome = Caller(stage("row_spread", kind="flat_map"), copy=True).run(xs(5))
    assert outcome.batch is not None and outcome.batch["c"].to_pylist() == [1, 2, 2, 4, 4, 4, 4]
    assert outcome.rows is not None and outcome.rows.tolist() == [1, 2, 2, 4, 4, 4, 4]
    assert [(row, reason.error) for row, reason in outcome.bad or []] == [(3, "KeyError: 'three'")]

    kept = Caller(stage("odd", kind="filter"), copy=True).run(xs(6))
    assert kept.batch is None and kept.rows is not None and kept.rows.tolist() == [1, 3, 5]
    with pytest.raises(UserCodeError, match="list of rows"):
        Caller(stage("one_dict", kind="flat_map"), copy=True).run(xs(1))


@pytest.mark.parametrize(("target", "words"), [("NotCallable", "__call__"), ("BadInit", "no file"), ("Absent", "Absent")])
def test_what_cannot_be_built_is_named(stage: Any, target: str, words: str) -> None:
    with pytest.raises(UserCodeError, match=words):
        Caller(stage(target), copy=True)


def test_storage_that_is_away_is_no_fault_of_the_code(stage: Any) -> None:
    with pytest.raises(InfraError, match=r"map_batches 'Fetches' .*: setup\(\): the store is away") as raised:
        Caller(stage("Fetches"), copy=True)
    assert raised.value.hint == "Wait."
    caller = Caller(stage("Fetches", args={"at": "teardown"}), copy=True)
    with pytest.raises(InfraError, match=r"teardown\(\)"):
        caller.close()


@pytest.mark.parametrize(("dtype", "told"), [("bf16", "bf16"), ("object", "torch.float16"), (None, "")])
def test_what_an_object_says_of_itself_is_told_as_text(stage: Any, dtype: str | None, told: str) -> None:
    assert Caller(stage("Precise", args={"dtype": dtype}), copy=True).attribute("dtype") == told
    assert Caller(stage("add"), copy=True).attribute("dtype") == ""


def test_input_columns_are_chosen_and_missed_by_name(stage: Any) -> None:
    batch = pa.record_batch({"a": [1], "b": [2]})
    assert select_columns(batch, stage("add", columns=["b"])).schema.names == ["b"]
    assert select_columns(batch, stage("add")) is batch
    with pytest.raises(UserCodeError, match="'z'"):
        select_columns(batch, stage("add", columns=["z"]))


@pytest.mark.parametrize("args", [{"parts": 3}, {"bad": [5, 40]}], ids=["yields", "halved"])
def test_code_that_fills_one_array_again_and_again_spoils_no_row(stage: Any, args: dict[str, Any]) -> None:
    outcome = Caller(stage("Reuses", args=args), copy=False).run(xs(64))
    bad = args.get("bad", [])
    assert outcome.batch is not None and outcome.batch["y"].to_pylist() == [2 * x for x in range(64) if x not in bad]


def test_a_batch_with_bad_rows_lets_go_of_its_slab(stage: Any) -> None:
    writer = SlabWriter("test")
    layout, fresh = writer.write(divide([xs(64)]))
    assert fresh is not None
    loan = Slab(fresh, os.fstat(fresh).st_size).lend(layout)
    assert loan.batch is not None
    gc.disable()
    try:
        Caller(stage("Reuses", args={"bad": [5, 40]}), copy=False).run(loan.batch)
        # Had an exception been kept, only the garbage collector would let go, and nobody knows when.
        assert loan.give_back()
    finally:
        gc.enable()


def test_an_asynchronous_class_is_given_the_next_batch_before_the_last_is_collected(stage: Any) -> None:
    caller = Caller(stage("Overlaps"), copy=False)
    assert caller.is_asynchronous and caller.depth == 2
    first, second = caller.begin(xs(3)), caller.begin(xs(5))
    ended = [caller.end(first), caller.end(second)]
    assert [each.batch["y"].to_pylist() for each in ended] == [[0, 2, 4], [0, 2, 4, 6, 8]]  # type: ignore[union-attr]
    assert first.ticket[2].base is not None and caller._owner.most == 2
    # Nothing was copied for a class that only reads.
    assert caller._owner.writable == {False}


@pytest.mark.parametrize("late", [False, True], ids=["at submit", "at collect"])
@pytest.mark.parametrize("named", [False, True], ids=["halved", "named"])
def test_bad_rows_of_an_asynchronous_class_are_found(stage: Any, late: bool, named: bool) -> None:
    caller = Caller(stage("Overlaps", args={"bad": [5, 40, 41], "late": late, "named": named}), copy=False)
    outcome = caller.run(xs(64))
    assert [row for row, _ in outcome.bad or ()] == [5, 40, 41]
    good = [x for x in range(64) if x not in (5, 40, 41)]
    assert outcome.rows is not None and outcome.rows.tolist() == good
    assert outcome.batch["y"].to_pylist() == [2 * x for x in good]
    if named:
        assert caller._owner.sizes == [64, 61] and (outcome.bad or [])[0][1].error == "5 is bad"


def test_what_does_not_fit_into_memory_is_told_from_other_faults(stage: Any) -> None:
    caller = Caller(stage("Overlaps", args={"hungry": 16}), copy=False)
    ended = caller.end(caller.begin(xs(64)))
    assert isinstance(ended, Fault) and ended.no_memory and ended.error == "MemoryError: too many rows"
    # Where nobody else takes care of it, it is halved like any other.
    assert caller.run(xs(64)).batch["y"].to_pylist() == [2 * x for x in range(64)]
    assert caller._owner.sizes[-4:] == [16, 16, 16, 16] or max(caller._owner.sizes[-4:]) <= 32
    caller = Caller(stage("Overlaps", args={"bad": [1]}), copy=False)
    ended = caller.end(caller.begin(xs(2)))
    assert isinstance(ended, Fault) and not ended.no_memory


def test_torch_and_its_libraries_run_out_of_memory_in_several_words(stage: Any) -> None:
    torch = pytest.importorskip("torch")
    for error, expected in [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ]:
        assert Fault.of(error).no_memory is expected


def test_a_fused_call_runs_the_front_before_the_model(stage: Any) -> None:
    front = stage("Front")
    caller = Caller(stage("Overlaps", columns=["x"]), copy=False, front=front)
    raw = pa.record_batch({"raw": np.arange(3)})
    assert caller.run(raw, fused=True).batch["y"].to_pylist() == [200, 202, 204]
    assert caller.run(xs(2)).batch["y"].to_pylist() == [0, 2]
    caller = Caller(stage("Overlaps", args={"bad": [101]}), copy=False, front=front)
    outcome = caller.run(raw, fused=True)
    assert outcome.batch["y"].to_pylist() == [200, 204] and [row for row, _ in outcome.bad or ()] == [1]


def test_a_front_that_lacks_something_is_refused_at_setup(stage: Any) -> None:
    front = stage("Front", args={"lacks": "decoder"})
    Caller(front, copy=True)
    with pytest.raises(UserCodeError, match="there is no decoder"):
        Caller(stage("Overlaps"), copy=False, front=front)


def test_columns_keep_their_rows_when_rows_are_named_in_halves(stage: Any) -> None:
    """Named and unnamed faults together: the parts that are left lie within each other."""
    caller = Caller(stage("Overlaps", args={"bad": [0, 30, 63], "late": True, "named": True, "hungry": 20}), copy=False)
    outcome = caller.run(xs(64))
    good = [x for x in range(64) if x not in (0, 30, 63)]
    assert outcome.rows is not None and outcome.rows.tolist() == good
    assert outcome.batch["y"].to_pylist() == [2 * x for x in good]

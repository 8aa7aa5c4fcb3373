"""Predictor processes: batches overlap, memory runs out, raw rows come, processes retire; through a real flow, without a host around it."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.spec.canonical import document_json
from antinfer.spec.schema import JobSpec
from antinfer.worker.host.early import start_predictors
from antinfer.worker.host.flow import Flow
from antinfer.worker.hostlink import Setup
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.batchsize import SLOTS
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.pool import Predictor
from antinfer.worker.predictors.process import PredictorProcess
from antinfer.worker.predictors.sizing import SizeMemory, Sizing
from tests.integration.hosts import Job, is_alive, wait_until

pytestmark = pytest.mark.timeout(120)

CODE = """
import atexit, os, signal, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from antinfer.errors import BadRows

class Overlaps:
    def __init__(self, seconds=0.0, bad=(), hungry=0, log=""):
        self.seconds, self.bad, self.hungry, self.log = seconds, set(bad), hungry, log
        self.open, self.views, self.most, self.sizes = [], 0, 0, []
    def expect(self, rows):
        self.note(f"expect {rows}")
    def register(self, view):
        self.views += 1
        assert isinstance(view, memoryview) and not view.readonly
    def unregister(self, view):
        self.views -= 1
    def teardown(self):
        self.note("torn down")
    def note(self, text):
        if self.log:
            with open(self.log, "a") as file:
                file.write(text + "\\n")
    def submit(self, batch):
        x = batch["x"]
        assert not x.flags.writeable
        if self.hungry and len(x) > self.hungry:
            raise MemoryError(f"{len(x)} rows")
        # One after the other, as a device does.
        begins = max(time.monotonic(), self.open[-1][1] if self.open else 0.0)
        self.open.append((x, begins + self.seconds))
        self.most = max(self.most, len(self.open))
        return self.open[-1]
    def collect(self, ticket):
        assert self.open.pop(0) is ticket
        x, ready = ticket
        time.sleep(max(0.0, ready - time.monotonic()))
        if set(x.tolist()) & self.bad:
            raise ValueError("bad row")
        n = len(x)
        return {"x": x, "most": np.full(n, self.most), "views": np.full(n, self.views), "rows": np.full(n, n)}

class Tells(Overlaps):
    def done(self, ticket):
        return time.monotonic() >= ticket[1]

class Plain:
    def __init__(self, hungry=0, die=()):
        self.hungry, self.die = hungry, set(die)
    def __call__(self, batch):
        x = batch["x"]
        if self.hungry and len(x) > self.hungry:
            raise MemoryError(f"{len(x)} rows")
        if 7 in x and self.hungry == 1:
            raise MemoryError("this row alone")
        if set(x.tolist()) & self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": x, "rows": np.full(len(x), len(x)), "devices": [os.environ.get("CUDA_VISIBLE_DEVICES", "all")] * len(x)}

class Leaves:
    def __init__(self, log):
        atexit.register(self.note, "at exit")
        self.log = log
    def __call__(self, batch):
        return {"x": batch["x"], "nice": np.full(len(batch["x"]), os.nice(0))}
    def teardown(self):
        self.note("torn down")
    def note(self, text):
        with open(self.log, "a") as file:
            file.write(text + "\\n")

class Decode:
    def submit(self, batch):
        made = batch["raw"] * 10
        made.flags.writeable = False
        return {"x": made}
    def __call__(self, batch):
        raise AssertionError("this is the CPU's way")

class DecodeAside(Decode):
    def __init__(self, seconds=0.0, bad=(), hungry=0, log=""):
        self.seconds, self.bad, self.hungry, self.log = seconds, set(bad), hungry, log
        self.aside = ThreadPoolExecutor(1)
    def submit(self, batch):
        return self.aside.submit(self.decode, batch["raw"])
    def decode(self, raw):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{raw[0]}\\n")
        time.sleep(self.seconds)
        if self.hungry and len(raw) > self.hungry:
            raise MemoryError(f"{len(raw)} rows")
        bad = {row: "no picture" for row, value in enumerate(raw.tolist()) if value in self.bad}
        if bad:
            raise BadRows(bad)
        return {**Decode.submit(self, {"raw": raw}), "more": raw}
    def teardown(self):
        self.aside.shutdown()

class Unit:
    # A piece of the memory of a device.
    used = 0
    def __init__(self, most):
        self.is_held = Unit.used < most
        if not self.is_held:
            raise MemoryError(f"all {most} are used")
        Unit.used += 1
    def __del__(self):
        Unit.used -= self.is_held

class DecodeIntoMemory(Decode):
    def __init__(self, most):
        self.most = most
        self.aside = ThreadPoolExecutor(1)
    def submit(self, batch):
        return self.aside.submit(lambda: {"x": batch["raw"] * 10, "unit": Unit(self.most)})

class ComputesInMemory:
    def __init__(self, most):
        self.most = most
    def submit(self, batch):
        return batch, Unit(self.most), time.monotonic() + 0.02
    def done(self, ticket):
        return time.monotonic() >= ticket[2]
    def collect(self, ticket):
        time.sleep(max(0.0, ticket[2] - time.monotonic()))
        return {"x": ticket[0]["x"]}

def on_cpu(batch):
    return {"x": batch["raw"] * 10}

class Slow:
    def __init__(self):
        time.sleep(60)
    def __call__(self, batch):
        return batch
"""


class Bench:
    """A flow with one node, fed by hand; what comes out, by position."""

    def __init__(self, folder: Path, target: str, rows: int, column: str = "x", **args: Any) -> None:
        (folder / "bench_steps.py").write_text(CODE)
        self.folder = folder
        self.stage = self.stage_of(target, **args)
        self.found: dict[int, dict[str, Any]] = {}
        self.flow = Flow([Call(self.stage, BatchLimits(rows), 1, in_processes=True)], self.collect)
        self.memory = SizeMemory(folder / "sizes")
        self.sizing = Sizing(0, self.stage, self.flow, memory=self.memory)
        self.root = Root(0)
        self.node = 0
        self.column = column
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def behind(self, front: StageCall, rows: int) -> None:
        """Put a hybrid stage in front whose work the predictor does."""
        limits = BatchLimits(rows)
        raw = Call(front, limits, 1, in_processes=False)
        self.flow = Flow([raw, Call(self.stage, limits, 1, in_processes=True, hybrid=0, on_gpu=front, gpu_share=1.0)], self.collect)
        self.node = 1

    def stage_of(self, target: str, **args: Any) -> StageCall:
        return StageCall(target, "predict", f"bench_steps:{target}", str(self.folder), args, tolerant=True)

    def start(self, **keys: Any) -> Predictor:
        predictor = Predictor(self.node, self.stage, self.flow, threads=1, **{"sizing": self.sizing, **keys})

        def run() -> None:
            try:
                predictor.run()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                self.errors.append(error)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        return predictor

    def put(self, begin: int, rows: int) -> None:
        self.flow.put(Piece(self.root, begin, begin + rows, pa.record_batch({self.column: np.arange(begin, begin + rows)})))

    def wait(self, rows: int) -> None:
        wait_until(lambda: self.errors or len(self.found) + len(self.root.bad) >= rows, f"{rows} rows")  # type: ignore[arg-type, return-value]
        assert not self.errors, self.errors

    def stop(self) -> None:
        self.flow.stop()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def collect(self, piece: Piece) -> None:
        if piece.batch is not None:
            for row, values in enumerate(piece.batch.to_pylist()):
                assert self.found.setdefault(piece.position(row), values) is values


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    benches: list[Bench] = []

    def start(*args: Any, **keys: Any) -> Bench:
        benches.append(Bench(tmp_path, *args, **keys))
        return benches[-1]

    yield start
    for bench in benches:
        bench.stop()


def test_batches_overlap_and_time_is_counted_once(make: Any) -> None:
    bench: Bench = make("Overlaps", 10, seconds=0.2)
    predictor = bench.start()
    assert predictor.wait_ready(30)
    began = time.monotonic()
    for begin in range(0, 100, 10):
        bench.put(begin, 10)
    bench.wait(100)
    clock = time.monotonic() - began
    assert [bench.found[at]["x"] for at in range(100)] == list(range(100))
    assert max(row["most"] for row in bench.found.values()) == 2
    assert {row["views"] for row in bench.found.values()} <= set(range(1, SLOTS + 1))
    # Ten batches of 0.2 s take two seconds, and each is there for two of them: counted twice, it would be four.
    busy = bench.flow.statistics()[0].busy_seconds
    assert 1.9 <= busy <= clock and busy < 3.8


@pytest.mark.parametrize(("target", "most"), [("Tells", 2), ("Overlaps", 1)])
def test_a_late_batch_is_begun_before_the_one_at_work_is_waited_for(make: Any, target: str, most: int) -> None:
    bench: Bench = make(target, 10, seconds=1.0)
    assert bench.start().wait_ready(30)
    bench.put(0, 10)
    wait_until(lambda: bench.flow.statistics()[0].rows_in == 10, "the first is taken")
    # It is waited for by now, if it ever is.
    time.sleep(0.3)
    bench.put(10, 10)
    bench.wait(20)
    assert {row["most"] for at, row in bench.found.items() if at >= 10} == {most}


def test_bad_rows_among_overlapping_batches_spoil_no_other(make: Any) -> None:
    bench: Bench = make("Overlaps", 16, bad=[3, 40, 41, 159])
    bench.start()
    for begin in range(0, 160, 16):
        bench.put(begin, 16)
    bench.wait(160)
    assert sorted(bench.root.bad) == [3, 40, 41, 159]
    assert {at: row["x"] for at, row in bench.found.items()} == {at: at for at in range(160) if at not in bench.root.bad}


@pytest.mark.parametrize(("kind", "gives_way"), [("predict", False), ("map_batches", True)])
def test_a_process_ends_in_order_and_what_runs_maps_gives_way_to_what_feeds_devices(
    make: Any, tmp_path: Path, kind: Any, gives_way: bool
) -> None:
    log = tmp_path / "log"
    bench: Bench = make("Leaves", 8, log=str(log))
    bench.stage = replace(bench.stage, kind=kind)
    predictor = bench.start()
    bench.put(0, 8)
    bench.wait(8)
    assert {row["nice"] - os.nice(0) > 0 for row in bench.found.values()} == {gives_way}
    assert predictor._process is not None
    process = predictor._process._process
    bench.stop()
    assert process.returncode == 0
    assert log.read_text().split("\n") == ["torn down", "at exit", ""]


@pytest.mark.parametrize("target", ["Overlaps", "Plain"])
def test_memory_that_runs_out_halves_batches_and_loses_no_row(make: Any, tmp_path: Path, target: str) -> None:
    bench: Bench = make(target, 64, hungry=10)
    predictor = bench.start()
    for begin in range(0, 640, 64):
        bench.put(begin, 64)
    bench.wait(640)
    assert [bench.found[at]["x"] for at in range(640)] == list(range(640)) and not bench.root.bad
    assert max(row["rows"] for row in bench.found.values()) <= 10
    assert bench.flow.batch_rows(0) == 8
    assert predictor.is_ready and predictor._process is not None


def test_a_row_that_fits_into_no_memory_is_quarantined_alone(make: Any) -> None:
    bench: Bench = make("Plain", 8, hungry=1)
    predictor = bench.start()
    assert predictor.wait_ready(30) and predictor._process is not None
    before = predictor._process.pid
    bench.put(0, 16)
    bench.wait(16)
    assert list(bench.root.bad) == [7] and "this row alone" in bench.root.bad[7].error
    assert predictor._process.pid == before


def test_raw_rows_go_through_the_front_first(make: Any) -> None:
    bench: Bench = make("Overlaps", 4, column="raw")
    front = bench.stage_of("Decode")
    bench.behind(front, 4)
    bench.start(front=front, sizing=None)
    bench.put(0, 12)
    bench.wait(12)
    assert not bench.root.bad
    assert [bench.found[at]["x"] for at in range(12)] == [10 * at for at in range(12)]
    assert bench.flow.statistics()[1].fused_rows == 12


@pytest.mark.parametrize("target", ["Overlaps", "Tells", "Plain"])
def test_what_the_front_makes_aside_is_whole_in_order_and_its_bad_rows_are_named(make: Any, target: str) -> None:
    bench: Bench = make(target, 4, column="raw")
    bench.stage = replace(bench.stage, columns=("x",))
    front = bench.stage_of("DecodeAside", seconds=0.01, bad=[5, 8, 11], hungry=3)
    bench.behind(front, 4)
    bench.start(front=front, sizing=None)
    bench.put(0, 40)
    bench.wait(40)
    assert {at: bad.error for at, bad in bench.root.bad.items()} == dict.fromkeys([5, 8, 11], "no picture")
    assert {at: row["x"] for at, row in bench.found.items()} == {at: 10 * at for at in range(40) if at not in (5, 8, 11)}


def test_a_batch_overtakes_those_that_the_front_still_works_on_but_none_that_it_has_done(make: Any) -> None:
    bench: Bench = make("Tells", 4, seconds=0.5, column="raw")
    front = bench.stage_of("DecodeAside", seconds=0.2)
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        message = process.receive(60)
        assert message is not None and message.data["is"] == "ready"
        for slot in range(5):
            process.send(slot, pa.record_batch({"x" if slot else "raw": [slot] * 4}), fused=not slot)
        answers = [process.receive(30) for _ in range(7)]
        assert [each.data["slot"] for each in answers if each is not None and each.data["is"] in ("aside", "made")] == [0, 0]
        slots = [each.data["slot"] for each in answers if each is not None and each.data["is"] == "result"]
        # The two that fill the model's queue were there before; the others, although sent long before, were not.
        assert slots == [1, 2, 0, 3, 4]
    finally:
        process.stop()
        process.close()


@pytest.mark.parametrize("most", [2, 4, 6])
def test_a_row_that_fits_alone_is_not_held_for_too_large_because_others_are_on_the_device(make: Any, most: int) -> None:
    bench: Bench = make("ComputesInMemory", 4, column="raw", most=most)
    front = bench.stage_of("DecodeIntoMemory", most=most)
    bench.behind(front, 4)
    bench.start(front=front, sizing=None)
    bench.put(0, 40)
    bench.wait(40)
    assert not bench.root.bad
    assert {at: row["x"] for at, row in bench.found.items()} == {at: 10 * at for at in range(40)}


def test_nothing_of_a_batch_outlives_the_error_of_the_front(make: Any) -> None:
    bench: Bench = make("Tells", 4, column="raw")
    front = bench.stage_of("DecodeAside", bad=[1])
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        kept = []
        for _ in range(20):
            process.send(0, pa.record_batch({"raw": [0, 1, 2, 3]}), fused=True)
            while (message := process.receive(60)) is not None and message.data["is"] != "result":
                pass
            assert message is not None and [row for row, _, _ in message.data["bad"]] == [1]
            kept.append(message.data["kept"])
        assert not any(kept), "a slab that is kept is lost, and another one is made"
    finally:
        process.stop()
        process.close()


def test_a_batch_that_fails_lives_while_it_waits_for_the_front(make: Any) -> None:
    """Otherwise it would be held to blame when the front hangs."""
    bench: Bench = make("Tells", 4, column="raw", bad=[9])
    front = bench.stage_of("DecodeAside", seconds=1.5)
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        process.send(0, pa.record_batch({"raw": [0, 1, 2, 3]}), fused=True)
        process.send(1, pa.record_batch({"x": [9, 10, 11, 12]}))
        said: list[tuple[str, Any]] = []
        while ("result", 0) not in said:
            message = process.receive(60)
            assert message is not None
            said.append((message.data["is"], message.data.get("slot")))
        assert said[said.index(("aside", 0)) : said.index(("made", 0))].count(("alive", None)) >= 5
        assert said.index(("made", 0)) < said.index(("result", 1))
    finally:
        process.stop()
        process.close()


def test_a_front_that_is_at_work_is_not_given_what_nobody_waits_for_any_more(make: Any, tmp_path: Path) -> None:
    bench: Bench = make("Tells", 4, column="raw")
    log = tmp_path / "log"
    front = bench.stage_of("DecodeAside", seconds=1.0, log=str(log))
    process = PredictorProcess(spawn.start(1), bench.stage, 1, front=front, rows=4)
    try:
        for slot in range(5):
            process.send(slot, pa.record_batch({"raw": [slot] * 4}), fused=True)
        wait_until(log.exists, "the first one in the front")
    finally:
        process.stop()
    assert process._process.returncode == 0
    process.close()
    assert log.read_text().splitlines() == ["0"]


def test_a_predictor_retires_after_the_batches_under_way(make: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bench: Bench = make("Overlaps", 10, seconds=0.2, log=str(log))
    predictor = bench.start()
    assert predictor.wait_ready(30)
    bench.put(0, 100)
    wait_until(lambda: len(predictor._under_way) == SLOTS, "all slots in use")
    assert predictor._process is not None
    pid = predictor._process.pid
    predictor.retire()
    bench.threads[0].join(30)
    assert not bench.threads[0].is_alive() and not is_alive(pid) and not bench.errors
    assert 30 <= len(bench.found) <= 50 and len(bench.found) % 10 == 0
    assert log.read_text().splitlines() == ["expect 10", "torn down"]
    # What it left is done by another one.
    bench.start()
    bench.wait(100)
    assert [bench.found[at]["x"] for at in range(100)] == list(range(100))


def test_one_that_waits_or_still_loads_retires_at_once(make: Any) -> None:
    idle: Bench = make("Plain", 10)
    waiting = idle.start()
    assert waiting.wait_ready(30)
    waiting.retire()
    idle.threads[0].join(20)
    assert not idle.threads[0].is_alive()
    loading: Bench = make("Slow", 10)
    loading.start().retire()
    loading.threads[0].join(20)
    assert not loading.threads[0].is_alive() and not loading.errors


def test_one_that_dies_while_retiring_loses_nothing(make: Any) -> None:
    bench: Bench = make("Plain", 4, die=[5])
    predictor = bench.start()
    assert predictor.wait_ready(30)
    bench.put(0, 12)
    wait_until(lambda: bool(predictor._under_way) or bool(bench.found), "a batch")
    predictor.retire()
    bench.threads[0].join(60)
    assert not bench.threads[0].is_alive() and not bench.errors
    bench.start()
    bench.wait(12)
    assert list(bench.root.bad) == [5] and len(bench.found) == 11


def test_the_size_is_found_and_remembered(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench: Bench = make("Overlaps", 256, seconds=0.05)
    caplog.set_level("INFO", "antinfer.predictors")
    sizing = Sizing(0, bench.stage, bench.flow, max_bytes=600, probes=True, memory=bench.memory)
    assert bench.flow.batch_rows(0) == 8
    bench.start(sizing=sizing)
    rows = 3000
    bench.put(0, rows)
    bench.wait(rows)
    # A batch takes 50 ms whatever its size, so only its bytes end the search.
    assert bench.flow.batch_rows(0) == 64
    lines = [record.message for record in caplog.records if getattr(record, "action", "") == "batch_size"]
    assert len(lines) == 4 and "trying 16" in lines[0] and "MiB" in lines[-1]
    assert bench.memory.recall(bench.stage, "CPU", "") == 64
    again: Bench = make("Overlaps", 256, seconds=0.05)
    sizing = Sizing(0, again.stage, again.flow, probes=True, memory=again.memory)
    assert again.start(sizing=sizing).wait_ready(30)
    wait_until(lambda: again.flow.batch_rows(0) == 64, "the size of the first run")


@pytest.mark.parametrize(("devices", "seen"), [(None, "all"), (["2", "5"], "2,5"), ([], "")])
def test_a_process_sees_the_devices_that_it_was_given(tmp_path: Path, devices: Any, seen: str) -> None:
    (tmp_path / "bench_steps.py").write_text(CODE)
    stage = StageCall("Plain", "predict", "bench_steps:Plain", str(tmp_path))
    process = PredictorProcess(spawn.start(1), stage, 1, devices=devices)
    ready = process.receive()
    assert ready is not None and ready.data["load_seconds"] >= 0
    assert ready.data["device"] == (f"GPU {', '.join(devices)}" if devices else "CPU")
    process.send(0, pa.record_batch({"x": [1, 2]}), full=2)
    message = process.receive()
    assert message is not None
    batch = process.outcome(message).batch
    process.stop()
    process.close()
    assert batch is not None and batch["devices"].to_pylist() == [seen] * 2


def write_rows(folder: Path, rows: int) -> None:
    (folder / "input").mkdir()
    pq.write_table(pa.table({"raw": np.arange(rows)}), folder / "input" / "0.parquet")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"num_gpus": 1}, ["this machine has no GPU", "'Plain'"]),
        ({"num_gpus": 0.5, "concurrency": 3}, ["no GPU"]),
    ],
)
def test_a_job_that_asks_for_gpus_where_there_are_none_fails_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], words: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_rows(tmp_path, 10)
    failure = Job(tmp_path, CODE, pipeline=[{"predict": "steps:Plain", **keys}]).fails()
    assert all(word in failure.error for word in words) and failure.lease is None


def test_stages_share_devices_in_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here touches a device, so any name will do."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    write_rows(tmp_path, 400)
    pipeline = [
        {"map_batches": "steps:on_cpu", "on_gpu": "steps:Decode", "gpu_share": 0.5, "batch_size": 8},
        {"predict": "steps:Plain", "num_gpus": 1, "concurrency": "auto", "batch_size": 8},
    ]
    job = Job(tmp_path, CODE, pipeline=pipeline)
    job.run()
    table = job.table()
    assert table["x"].to_pylist() == [10 * at for at in range(400)]
    assert set(table["devices"].to_pylist()) <= {"4", "6"}
    job.place.close()
    other = tmp_path / "too many"
    other.mkdir()
    write_rows(other, 10)
    pipeline[1] |= {"concurrency": 3}
    assert "3 GPUs (Plain: 3 x 1), and this machine has 2 GPUs (4, 6)" in Job(other, CODE, pipeline=pipeline).fails().error


PARTS = """
import torch

def brightness():
    return torch.nn.AdaptiveAvgPool2d(1)

def to_planes(batch):
    return batch["image"].permute(0, 3, 1, 2)

def to_columns(output):
    return {"brightness": output.mean(dim=1).flatten()}
"""


def test_ready_made_parts_in_a_job_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From JPEG files to what a torch module says of them; one file is damaged."""
    pytest.importorskip("torch")
    images = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = []
    for level in range(60):
        file = io.BytesIO()
        images.new("RGB", (60, 40), (level * 4,) * 3).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    files[13] = files[13][:100]
    (tmp_path / "input").mkdir()
    pq.write_table(pa.table({"id": np.arange(60), "jpeg": files}), tmp_path / "input" / "0.parquet")
    model = {"model": "steps:brightness", "preprocess": "steps:to_planes", "postprocess": "steps:to_columns", "dtype": "fp32"}
    pipeline = [
        {"map_batches": "antinfer.predictors:DecodeJpeg", "args": {"resize": 32, "crop": 28}, "batch_size": 16},
        {"map_batches": "steps:as_float"},
        {"predict": "antinfer.predictors:TorchPredictor", "args": model},
    ]
    code = PARTS + "def as_float(batch):\n    return {'image': batch['image'].astype('float32')}\n"
    job = Job(tmp_path, code, pipeline=pipeline, carryover=["id"], quarantine={"max_fraction": 0.1})
    records = job.run()
    table = job.table()
    assert table["id"].to_pylist() == [at for at in range(60) if at != 13]
    assert np.allclose(table["brightness"].to_numpy(), table["id"].to_numpy() * 4, atol=2)
    assert sum(record.rows_quarantined for record in records) == 1


GPU_MODEL, CPU_MODEL, MAP = {"predict": "m:P", "num_gpus": 0.5}, {"predict": "m:P"}, {"map_batches": "m:f", "workers_as": "processes"}
SPREAD = {"flat_map": "m:f", "workers_as": "processes"}


@pytest.mark.parametrize(
    ("stages", "isolated", "heir", "count"),
    [
        ([CPU_MODEL], False, 0, 1),
        ([{"map_batches": "m:f"}, CPU_MODEL], False, 0, 1),
        ([{"map_batches": "m:f"}, CPU_MODEL], True, None, 2),
        ([SPREAD, GPU_MODEL, GPU_MODEL, {"gather": {"into": "c"}}], False, 1, 3),
        ([{"parallel": {"a": [MAP], "b": [GPU_MODEL]}}, CPU_MODEL], False, 1, 3),
        ([MAP, CPU_MODEL], False, None, 2),
        ([{"map_batches": "m:f"}], False, None, 0),
    ],
)
def test_the_spare_process_becomes_the_one_that_loads_longest(
    stages: list[dict[str, Any]], isolated: bool, heir: int | None, count: int
) -> None:
    spec = JobSpec.model_validate({"source": {"type": "parquet", "path": "/in"}, "pipeline": stages, "sink": {"path": "/out"}})
    document = json.dumps({"spec": json.loads(document_json(spec))})
    spare = spawn.start_spare()
    started = start_predictors(Setup(worker="w", job="j", document=document, output="/out", isolated=isolated), spare)
    try:
        assert len(started) == count
        assert [at for at, each in enumerate(started) if each is spare] == ([] if heir is None else [heir])
        assert (spare.process.poll() is None) == (heir is not None)
    finally:
        for each in started:
            each.discard()

"""Predictor processes: batches overlap, memory runs out, processes retire; through a real flow, without a host around it."""

from __future__ import annotations

import io
import json
import os
import time
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
from antinfer.worker.host.nvml import GpuReader
from antinfer.worker.hostlink import Setup
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.process import PredictorProcess
from antinfer.worker.predictors.sizing import Sizing
from antinfer.worker.tuning.batchsize import SLOTS
from tests.integration.hosts import Job, is_alive, wait_until
from tests.integration.predictorbench import CODE, Bench

pytestmark = pytest.mark.timeout(120)


def test_batches_overlap_and_time_is_counted_once(make_bench: Any) -> None:
    bench: Bench = make_bench("Overlaps", 10, seconds=0.2)
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
def test_a_late_batch_is_begun_before_the_one_at_work_is_waited_for(make_bench: Any, target: str, most: int) -> None:
    bench: Bench = make_bench(target, 10, seconds=1.0)
    assert bench.start().wait_ready(30)
    bench.put(0, 10)
    wait_until(lambda: bench.flow.statistics()[0].rows_in == 10, "the first is taken")
    # It is waited for by now, if it ever is.
    time.sleep(0.3)
    bench.put(10, 10)
    bench.wait(20)
    assert {row["most"] for at, row in bench.found.items() if at >= 10} == {most}


def test_bad_rows_among_overlapping_batches_spoil_no_other(make_bench: Any) -> None:
    bench: Bench = make_bench("Overlaps", 16, bad=[3, 40, 41, 159])
    bench.start()
    for begin in range(0, 160, 16):
        bench.put(begin, 16)
    bench.wait(160)
    assert sorted(bench.root.bad) == [3, 40, 41, 159]
    assert {at: row["x"] for at, row in bench.found.items()} == {at: at for at in range(160) if at not in bench.root.bad}


@pytest.mark.parametrize(("kind", "gives_way"), [("predict", False), ("map_batches", True)])
def test_a_process_ends_in_order_and_what_runs_maps_gives_way_to_what_feeds_devices(
    make_bench: Any, tmp_path: Path, kind: Any, gives_way: bool
) -> None:
    log = tmp_path / "log"
    bench: Bench = make_bench("Leaves", 8, log=str(log))
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
def test_memory_that_runs_out_halves_batches_and_loses_no_row(make_bench: Any, tmp_path: Path, target: str) -> None:
    bench: Bench = make_bench(target, 64, hungry=10)
    predictor = bench.start()
    for begin in range(0, 640, 64):
        bench.put(begin, 64)
    bench.wait(640)
    assert [bench.found[at]["x"] for at in range(640)] == list(range(640)) and not bench.root.bad
    assert max(row["rows"] for row in bench.found.values()) <= 10
    assert bench.flow.batch_rows(0) == 8
    assert predictor.is_ready and predictor._process is not None


def test_a_row_that_fits_into_no_memory_is_quarantined_alone(make_bench: Any) -> None:
    bench: Bench = make_bench("Plain", 8, hungry=1)
    predictor = bench.start()
    assert predictor.wait_ready(30) and predictor._process is not None
    before = predictor._process.pid
    bench.put(0, 16)
    bench.wait(16)
    assert list(bench.root.bad) == [7] and "this row alone" in bench.root.bad[7].error
    assert predictor._process.pid == before


def test_a_predictor_retires_after_the_batches_under_way(make_bench: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bench: Bench = make_bench("Overlaps", 10, seconds=0.2, log=str(log))
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


def test_one_that_waits_or_still_loads_retires_at_once(make_bench: Any) -> None:
    idle: Bench = make_bench("Plain", 10)
    waiting = idle.start()
    assert waiting.wait_ready(30)
    waiting.retire()
    idle.threads[0].join(20)
    assert not idle.threads[0].is_alive()
    loading: Bench = make_bench("Slow", 10)
    loading.start().retire()
    loading.threads[0].join(20)
    assert not loading.threads[0].is_alive() and not loading.errors


def test_one_that_dies_while_retiring_loses_nothing(make_bench: Any) -> None:
    bench: Bench = make_bench("Plain", 4, die=[5])
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


def test_the_size_is_found_and_remembered(make_bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench: Bench = make_bench("Overlaps", 256, seconds=0.05)
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
    again: Bench = make_bench("Overlaps", 256, seconds=0.05)
    sizing = Sizing(0, again.stage, again.flow, probes=True, memory=again.memory)
    assert again.start(sizing=sizing).wait_ready(30)
    wait_until(lambda: again.flow.batch_rows(0) == 64, "the size of the first run")


@pytest.mark.parametrize("fits_alone", [True, False])
def test_a_row_that_takes_much_memory_early_on_does_not_keep_the_size_small(
    make_bench: Any, caplog: pytest.LogCaptureFixture, fits_alone: bool
) -> None:
    bench: Bench = make_bench("Strains", 256, at=3, fits_alone=fits_alone)
    caplog.set_level("INFO", "antinfer.predictors")
    remembered: list[int] = []
    bench.memory.remember = lambda stage, device, dtype, rows: remembered.append(rows)  # type: ignore[method-assign]
    bench.start(sizing=Sizing(0, bench.stage, bench.flow, max_bytes=600, probes=True, memory=bench.memory))
    # Where it fits alone, 64 batches each of one row, of two, of four and of eight come before the search goes on.
    rows = 3000
    bench.put(0, rows)
    bench.wait(rows)
    assert list(bench.root.bad) == ([] if fits_alone else [3])
    assert bench.flow.batch_rows(0) == 64 and remembered == [64]
    lines = [record.message for record in caplog.records if getattr(record, "action", "") == "batch_size"]
    assert [line.endswith("1 rows from now on") for line in lines[:3]] == [False, False, True]
    assert lines[3].endswith("trying 2 again" if fits_alone else "a row does not fit into memory alone: 8 rows again")


@pytest.mark.parametrize(("devices", "seen"), [(None, "all"), (["2", "5"], "2,5"), ([], "")])
def test_a_process_sees_the_devices_that_it_was_given(tmp_path: Path, devices: Any, seen: str) -> None:
    (tmp_path / "bench_steps.py").write_text(CODE)
    stage = StageCall("Plain", "predict", "bench_steps:Plain", str(tmp_path))
    process = PredictorProcess(spawn.start(1), stage, 1, devices=devices)
    ready = process.receive()
    assert ready is not None and ready.data["load_seconds"] >= 0
    assert ready.data["device"] == (GpuReader(devices).model() or f"GPU {', '.join(devices)}" if devices else "CPU")
    process.send(0, [pa.record_batch({"x": [1, 2]})], full=2)
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

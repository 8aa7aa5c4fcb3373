"""Predictors on a real GPU: ``pytest -m gpu tests/gpu``. Skipped, with the reason, where there is none."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.launchers.gpus import visible_gpus
from antinfer.predictors import DecodeJpeg
from antinfer.worker.calls import Caller
from antinfer.worker.host.flow import Flow
from antinfer.worker.layout import divide
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.predictor import Predictor
from antinfer.worker.predictors.sizing import SizeMemory, Sizing
from antinfer.worker.shm import Slab, SlabWriter

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
]

CODE = """
import numpy as np
import torch
from antinfer import TorchPredictor
from antinfer.predictors import DecodeJpeg

class Net(torch.nn.Module):
    def __init__(self, waste=0):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.waste = waste
    def forward(self, x):
        if self.waste:
            # So many bytes for each row, touched.
            torch.empty(len(x) * self.waste, dtype=torch.uint8, device=x.device).zero_()
        return self.conv(x).mean(dim=(1, 2, 3))

class Predict(TorchPredictor):
    def __init__(self, waste=0, **keys):
        torch.manual_seed(0)
        super().__init__(Net, model_args={"waste": waste}, **keys)
    def preprocess(self, batch):
        self.ids = batch.get("id")
        return batch["image"].permute(0, 3, 1, 2).float() / 255
    def postprocess(self, output):
        result = {"score": output.float(), "rows": torch.full_like(output, len(output), dtype=torch.int64)}
        return result if self.ids is None else {"id": self.ids, **result}

class Broken(Predict):
    def postprocess(self, output):
        bad = self.ids == 777
        # An index out of bounds is asserted on the device and leaves it unusable.
        table = torch.zeros(2, device=output.device)
        table[bad.long() * 10**6]
        return super().postprocess(output)

class Slow(Predict):
    def postprocess(self, output):
        # About half a second, in which the device does nothing else on this stream.
        torch.cuda._sleep(1_000_000_000)
        return super().postprocess(output)

LIES_AT = []

class Decode(DecodeJpeg):
    def submit(self, batch):
        made = super().submit(batch)
        made.add_done_callback(lambda done: LIES_AT.append(done.result()["image"].data_ptr()))
        return made

class Watch(Predict):
    def preprocess(self, batch):
        self.is_same = batch["image"].is_cuda and batch["image"].data_ptr() == LIES_AT[-1]
        return super().preprocess(batch)
    def postprocess(self, output):
        return {**super().postprocess(output), "same": torch.full_like(output, self.is_same, dtype=torch.bool)}
"""


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    (tmp_path / "gpu_steps.py").write_text(CODE)
    return tmp_path


def stage_of(folder: Path, target: str, **args: Any) -> StageCall:
    reference = target if ":" in target else f"gpu_steps:{target}"
    return StageCall(target.rpartition(":")[2], "predict", reference, str(folder), args, tolerant=True)


def images(begin: int, rows: int, side: int = 32) -> pa.RecordBatch:
    pixels = np.random.default_rng(begin).integers(0, 255, (rows, side, side, 3), dtype=np.uint8)
    tensor = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.uint8(), (side, side, 3)), pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), side * side * 3)
    )
    return pa.record_batch({"id": np.arange(begin, begin + rows), "image": tensor})


class Running:
    """A predictor behind a flow with one node."""

    def __init__(self, folder: Path, stage: StageCall, rows: int, *, probes: bool = False, devices: list[str] | None = None) -> None:
        self.found: dict[int, dict[str, Any]] = {}
        self.flow = Flow([Call(stage, BatchLimits(rows), 1, in_processes=True)], self._collect)
        sizing = Sizing(0, stage, self.flow, probes=probes, memory=SizeMemory(folder / "sizes"))
        self.predictor = Predictor(0, stage, self.flow, threads=2, devices=devices, sizing=sizing)
        self.root = Root(0)
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.flow.stop()
        self.thread.join(30)

    def put(self, batch: pa.RecordBatch) -> None:
        begin = batch["id"][0].as_py()
        self.flow.put(Piece(self.root, begin, begin + batch.num_rows, batch))

    def wait(self, rows: int, seconds: float = 200) -> None:
        deadline = time.monotonic() + seconds
        while not self.errors and len(self.found) + len(self.root.bad) < rows:
            assert time.monotonic() < deadline, f"{len(self.found)} rows"
            time.sleep(0.01)
        assert not self.errors

    def _collect(self, piece: Piece) -> None:
        if piece.batch is not None:
            self.found.update({piece.position(row): values for row, values in enumerate(piece.batch.to_pylist())})

    def _run(self) -> None:
        try:
            self.predictor.run()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.errors.append(error)


def expected(batch: pa.RecordBatch, folder: Path) -> list[float]:
    sys.path.insert(0, str(folder))
    try:
        from gpu_steps import Predict
    finally:
        sys.path.remove(str(folder))
    model = Predict(device="cpu")
    model.setup()
    sys.modules.pop("gpu_steps")
    scores: list[float] = model({"image": batch["image"].to_numpy_ndarray()})["score"].tolist()
    return scores


def test_this_machine_has_gpus() -> None:
    assert len(visible_gpus()) == torch.cuda.device_count()


@pytest.mark.parametrize("keys", [{}, {"channels_last": True}, {"compile": True}], ids=["eager", "channels last", "compiled"])
def test_results_are_those_of_the_cpu(steps: Path, keys: dict[str, Any]) -> None:
    with Running(steps, stage_of(steps, "Predict", **keys), 64, devices=list(visible_gpus()[:1])) as running:
        batches = [images(begin, 64) for begin in range(0, 640, 64)] + [images(640, 10)]
        for batch in batches:
            running.put(batch)
        running.wait(650)
        assert running.predictor.is_ready
    assert [running.found[at]["id"] for at in range(650)] == list(range(650))
    for batch in (batches[0], batches[4], batches[-1]):
        begin = batch["id"][0].as_py()
        ours = [running.found[begin + at]["score"] for at in range(batch.num_rows)]
        assert np.allclose(ours, expected(batch, steps), atol=1e-2)
    # The model of a compiled one saw full batches only.
    assert {row["rows"] for at, row in running.found.items() if at >= 640} == {64 if "compile" in keys else 10}


class Lent:
    """A batch in memory that `caller` has pinned, as it lies there in a worker."""

    def __init__(self, caller: Caller, batch: pa.RecordBatch) -> None:
        layout, fresh = SlabWriter("test").write(divide([batch]))
        assert fresh is not None
        self.slab = Slab(fresh, os.fstat(fresh).st_size)
        caller.tell("register", self.slab.view())
        self._lent = self.slab.lend(layout)

    @property
    def batch(self) -> pa.RecordBatch:
        assert self._lent.batch is not None
        return self._lent.batch


def test_slabs_are_pinned_and_two_batches_are_under_way(steps: Path) -> None:
    caller = Caller(stage_of(steps, "Predict"), copy=False, rows=64)
    lent = Lent(caller, images(0, 64, side=128))
    assert caller.depth == 2
    assert torch.frombuffer(lent.slab.view(), dtype=torch.uint8).is_pinned()
    first, second = caller.begin(lent.batch), caller.begin(lent.batch)
    one, two = caller.end(first), caller.end(second)
    assert one.batch["score"].equals(two.batch["score"])  # type: ignore[union-attr]
    caller.tell("unregister", lent.slab.view())
    assert not torch.frombuffer(lent.slab.view(), dtype=torch.uint8).is_pinned()


def test_a_batch_is_copied_to_the_device_while_the_last_one_is_computed(steps: Path) -> None:
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    caller = Caller(stage_of(steps, "Slow"), copy=False, rows=64)
    lent = [Lent(caller, images(begin, 64, side=512)) for begin in (0, 64)]
    # What the device loads on first use would wait for all that runs on it.
    caller.run(lent[0].batch)
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as seen:
        begun = [caller.begin(each.batch) for each in lent]
        for each in begun:
            caller.end(each)
    events = [(event.name, event.time_range) for event in seen.events() if event.device_type == DeviceType.CUDA]
    spins = sorted((span.start, span.end) for name, span in events if "spin" in name)
    copies = [span for name, span in events if "HtoD" in name and "Pinned" in name and span.elapsed_us() > 100]
    assert len(spins) == 2 and len(copies) == 2, events
    # Behind the first batch on one stream, the second would be copied when that one is computed.
    assert max(span.end for span in copies) < sum(spins[0]) / 2, (spins, copies)


def test_results_come_back_while_the_next_batch_is_computed(steps: Path) -> None:
    caller = Caller(stage_of(steps, "Slow"), copy=False, rows=64)
    caller.run(images(0, 64))
    first, second = caller.begin(images(0, 64)), caller.begin(images(64, 64))
    assert not caller.is_done(first), "to submit is not to wait"
    assert first.ticket.results["score"].is_pinned(), "or its copy would wait for the host"
    outcome = caller.end(first)
    assert not caller.is_done(second), "nor is to collect to wait for the next"
    assert isinstance(outcome, Outcome) and outcome.batch is not None
    assert np.allclose(outcome.batch["score"].to_numpy(), expected(images(0, 64), steps), atol=1e-2)
    caller.end(second)


def test_cuda_memory_that_runs_out_halves_batches_and_restarts_nothing(steps: Path) -> None:
    """A row takes a fiftieth of the device: 64 of them never fit."""
    waste = torch.cuda.get_device_properties(0).total_memory // 50
    with Running(steps, stage_of(steps, "Predict", waste=waste), 64) as running:
        while not running.predictor.wait_ready(1):
            assert not running.errors
        pid = running.predictor._process.pid  # type: ignore[union-attr]
        for begin in range(0, 640, 64):
            running.put(images(begin, 64))
        running.wait(640)
        assert running.predictor._process.pid == pid  # type: ignore[union-attr]
        assert running.flow.batch_rows(0) in (16, 32)
    assert sorted(running.found) == list(range(640)) and not running.root.bad
    assert [running.found[at]["id"] for at in range(640)] == list(range(640))


def test_a_row_that_is_too_large_for_the_device_is_quarantined_alone(steps: Path) -> None:
    waste = 2 * torch.cuda.get_device_properties(0).total_memory
    with Running(steps, stage_of(steps, "Predict", waste=waste), 4) as running:
        running.put(images(0, 4))
        running.wait(4)
    assert sorted(running.root.bad) == [0, 1, 2, 3] and "out of memory" in running.root.bad[0].error


def test_a_device_that_an_assertion_broke_costs_the_guilty_row_only(steps: Path) -> None:
    with Running(steps, stage_of(steps, "Broken"), 16) as running:
        running.put(images(770, 16))
        running.wait(16)
    assert list(running.root.bad) == [777] and len(running.found) == 15


def test_the_batch_size_is_found(steps: Path) -> None:
    with Running(steps, stage_of(steps, "Predict"), 4096, probes=True) as running:
        # How many batches it takes depends on how even they are; there are several of the largest in what is put at once.
        for begin in range(0, 100 * 16_384, 16_384):
            running.put(images(begin, 16_384))
            running.wait(begin + 16_384)
            if (steps / "sizes").exists():
                break
        assert 16 <= running.flow.batch_rows(0) <= 4096
    assert list((steps / "sizes").iterdir())


# -- decoding ----------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def pil() -> Any:
    pytest.importorskip("torchvision")
    return pytest.importorskip("PIL.Image")


def jpeg(pil: Any, height: int, width: int, seed: int, mode: str = "RGB") -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    pil.fromarray(small).resize((width, height), pil.Resampling.BICUBIC).convert(mode).save(file, "JPEG", quality=92)
    return file.getvalue()


def column(files: list[bytes]) -> np.ndarray[Any, Any]:
    made = np.empty(len(files), dtype=object)
    made[:] = files
    return made


def on_device(decoder: DecodeJpeg, batch: dict[str, Any]) -> torch.Tensor:
    made = decoder.submit(batch)
    assert isinstance(made, Future)
    image: torch.Tensor = made.result()["image"]
    return image


def test_gpu_and_cpu_decode_alike(pil: Any) -> None:
    sizes = [(375, 500), (500, 375), (375, 500), (224, 224), (100, 90), (375, 500)]
    files = [jpeg(pil, *size, seed) for seed, size in enumerate(sizes)]
    files.append(jpeg(pil, 300, 300, 9, mode="L"))
    batch = {"jpeg": column(files)}
    on_gpu = on_device(DecodeJpeg(), batch)
    assert on_gpu.is_cuda and on_gpu.dtype == torch.uint8 and tuple(on_gpu.shape) == (7, 224, 224, 3)
    difference = np.abs(on_gpu.cpu().numpy().astype(int) - DecodeJpeg()(batch)["image"].astype(int))
    # Both are free in how they scale colours up, which shows where pictures are scaled up too.
    limits = [3 if min(size) > 200 else 8 for size in sizes] + [3]
    assert (difference.mean(axis=(1, 2, 3)) < limits).all()


def test_kinds_of_jpeg_that_the_gpu_may_not_know_are_decoded_all_the_same(pil: Any) -> None:
    files = [jpeg(pil, 300, 400, 1), jpeg(pil, 300, 400, 2, mode="CMYK"), jpeg(pil, 300, 400, 3)]
    made = on_device(DecodeJpeg(), {"jpeg": column(files)})
    assert tuple(made.shape) == (3, 224, 224, 3) and all(made[row].float().std() > 10 for row in range(3))


def test_decoding_ahead_of_a_busy_device_spoils_no_picture(pil: Any) -> None:
    """The decoder does not wait for what the device has still to do with the pictures of the batch before."""
    decoder = DecodeJpeg()
    batches = [{"jpeg": column([jpeg(pil, 375, 500, 100 * n + seed) for seed in range(8)])} for n in range(6)]
    alone = [on_device(decoder, batch).cpu() for batch in batches]
    torch.cuda._sleep(2 * 10**9)
    ahead = [on_device(decoder, batch) for batch in batches]
    assert not torch.cuda.current_stream().query(), "the device has done it already, and this has shown nothing"
    assert all(torch.equal(one.cpu(), other) for one, other in zip(ahead, alone, strict=True))


def test_a_decoded_picture_goes_to_the_model_from_where_it_lies_on_the_device(pil: Any, steps: Path) -> None:
    caller = Caller(stage_of(steps, "Watch"), copy=False, front=stage_of(steps, "Decode"), rows=8)
    outcome = caller.run(pa.record_batch({"jpeg": [jpeg(pil, 375, 500, seed) for seed in range(8)]}), fused=True)
    assert outcome.batch is not None and outcome.batch["same"].to_pylist() == [True] * 8


def test_a_fused_call_gives_bad_files_up(pil: Any, steps: Path) -> None:
    front = stage_of(steps, "antinfer.predictors:DecodeJpeg")
    caller = Caller(stage_of(steps, "Predict"), copy=False, front=front, rows=8)
    files = [jpeg(pil, 375, 500, seed) for seed in range(8)]
    files[3] = b"no picture"
    outcome = caller.run(pa.record_batch({"jpeg": files}), fused=True)
    assert [row for row, _ in outcome.bad or ()] == [3]
    assert outcome.rows is not None and outcome.rows.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert np.isfinite(outcome.batch["score"].to_numpy()).all()


@pytest.fixture(autouse=True)
def _give_memory_back() -> Iterator[None]:
    yield
    # Each test has its own module of that name.
    sys.modules.pop("gpu_steps", None)
    torch.cuda.empty_cache()

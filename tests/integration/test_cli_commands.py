"""Every command of the command line, as real processes on small jobs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from antinfer.testing.chaos.servers import valkey
from tests.integration.commands import ROWS, JobFolder, antinfer, environment, finish, kill, start, wait_until

EVERY_ID = list(range(ROWS))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished job; tests leave it as it is."""
    job = JobFolder(tmp_path_factory.mktemp("done") / "job")
    job.report = antinfer("run", job.folder, "--json").json()
    return job


def copy_of(job: JobFolder, folder: Path) -> Path:
    shutil.copytree(job.output, folder)
    return folder


# -- run -------------------------------------------------------------------------------------------------------------------------------


def test_run_tells_scripts_what_became_of_the_rows(done):
    assert {name: done.report[name] for name in ("rows_in", "rows_out", "rows_quarantined", "parts")} == {
        "rows_in": ROWS,
        "rows_out": ROWS,
        "rows_quarantined": 0,
        "parts": 2,
    }
    assert done.report["output"] == str(done.output)
    assert done.ids() == EVERY_ID


def test_run_of_a_job_that_is_done_does_nothing_and_says_the_same(done):
    before = {path: path.stat().st_mtime_ns for path in done.output.glob("part-*")}

    again = antinfer("run", done.folder)

    assert again.code == 0
    assert "not heeded" not in again.err
    assert f"{ROWS:,} rows in = {ROWS:,} out + 0 quarantined, 2 parts" in again.out
    assert {path: path.stat().st_mtime_ns for path in done.output.glob("part-*")} == before


def test_run_of_the_first_rows_only_into_another_place(done, tmp_path):
    # What speaks to a controller is said to be in vain.
    more = ["--set", "workers.deadline=1h", "--set", "workers.on_demand=0.5"]
    ended = antinfer("run", done.job, "--limit", "10", "--output", tmp_path / "few", "--json", *more)

    assert ended.code == 0, ended
    assert "run to the end: workers.on_demand, workers.deadline\n" in ended.err
    assert ended.json()["rows_in"] == 10
    assert antinfer("verify", tmp_path / "few").code == 0


def test_python_api_runs_the_same_job(done, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import antinfer as ai\n"
        "from steps import Model\n"
        "if __name__ == '__main__':\n"
        f"    job = ai.read_parquet({str(done.data)!r}).predict(Model, batch_size=100).carryover('id')\n"
        f"    print(job.write_parquet({str(tmp_path / 'output')!r}).run(workers=2)['rows_out'])\n"
    )
    shutil.copy(done.steps, tmp_path / "steps.py")

    ended = subprocess.run([sys.executable, script], env=environment(), capture_output=True, text=True, timeout=90, check=False)

    assert (ended.returncode, ended.stdout) == (0, f"{ROWS}\n"), ended.stderr
    assert antinfer("verify", tmp_path / "output").code == 0


# -- looking ---------------------------------------------------------------------------------------------------------------------------


def test_preview_prints_rows_and_leaves_the_output_alone(tmp_path):
    job = JobFolder(tmp_path / "job")

    shown = antinfer("preview", job.folder, "--rows", "3")
    told = antinfer("preview", job.folder, "--rows", "3", "--json")

    assert (shown.code, shown.out) == (0, "id=0, y=0.0\nid=1, y=1.0\nid=2, y=2.0\n"), shown
    assert told.json() == {"rows": [{"id": i, "y": float(i)} for i in range(3)], "quarantined": 0}
    assert not job.output.exists()


def test_plan_says_what_the_job_would_do(done, tmp_path):
    shown = antinfer("plan", done.folder, "--output", tmp_path / "never")
    told = antinfer("plan", done.folder, "--json").json()

    assert shown.code == 0
    *facts, note = shown.out.splitlines()
    assert {line.split()[0] for line in facts} == {"files", "rows", "shards", "parts", "estimate", "columns", "output"}
    assert "unknown: `antinfer profile`" in shown.out and told["seconds"] is None
    assert note == "note: predict 'Model' has no `columns`, so its process is sent what is carried over as well (id)"
    named = antinfer("plan", done.folder, "--output", tmp_path / "never", "--set", "pipeline.0.columns=[x]")
    assert named.code == 0 and "note:" not in named.out
    assert (told["files"], told["rows"], told["shards"]) == (2, ROWS, 2)
    assert told["columns"] == [["id", "int64"], ["x", "double"]]
    assert not (tmp_path / "never").exists()


def test_verify_proves_a_whole_output(done):
    shown, told = antinfer("verify", done.output), antinfer("verify", done.output, "--json")

    assert shown.code == 0
    assert f"rows in {ROWS:,} = rows out {ROWS:,} + quarantined 0" in shown.out
    assert told.code == 0
    assert told.json()["ok"] is True and told.json()["faults"] == []


def test_verify_names_a_part_that_is_gone(done, tmp_path):
    output = copy_of(done, tmp_path / "output")
    victim = sorted(output.glob("part-*"))[0]
    victim.unlink()

    shown, told = antinfer("verify", output), antinfer("verify", output, "--json")

    assert shown.code == told.code == 4
    assert victim.name in shown.err
    assert [fault["name"] for fault in told.json()["faults"] if "missing" in fault["kind"]] == [victim.name]


def test_verify_names_a_part_that_is_there_twice(done, tmp_path):
    output = copy_of(done, tmp_path / "output")
    part = sorted(output.glob("part-*"))[0]
    double = part.with_name(part.name.replace(".parquet", "-r1.parquet"))
    shutil.copy(part, double)

    shown = antinfer("verify", output)

    assert shown.code == 4
    assert double.name in shown.err


def test_status_of_a_finished_job_needs_no_master(done):
    shown, told = antinfer("status", done.output), antinfer("status", done.output, "--json").json()

    assert shown.code == 0
    assert f"{ROWS:,} of {ROWS:,} rows" in shown.out
    assert (told["phase"], told["rows_committed"]) == ("done", ROWS)


def test_status_where_nobody_ever_worked(tmp_path):
    antinfer("status", tmp_path).check_failure(1, "no master is known to work on", "hint: ")


# -- init, doctor, help ----------------------------------------------------------------------------------------------------------------


def test_init_writes_a_job_that_runs_as_it_is(tmp_path):
    written = antinfer("init", tmp_path / "mine")
    assert written.code == 0, written

    ended = antinfer("run", tmp_path / "mine")

    assert ended.code == 0, ended
    assert "2,000 rows in = 2,000 out" in ended.out and "auroc 0." in ended.out
    assert antinfer("verify", tmp_path / "mine" / "output").code == 0
    antinfer("init", tmp_path / "mine").check_failure(2, "is not empty", "hint: ")


def test_doctor_looks_at_the_machine_and_a_job(done):
    shown, told = antinfer("doctor", done.folder), antinfer("doctor", "--json").json()

    assert shown.code == 0, shown
    assert "syncs every write before it answers" in shown.out and "steps:Model" in shown.out
    assert {"python", "store", "pyarrow"} <= {finding["what"] for finding in told["findings"]}


def test_doctor_names_what_is_wrong_with_a_job(tmp_path):
    job = JobFolder(tmp_path / "job", "steps:Modle")

    found = antinfer("doctor", job.folder, "--json")

    assert found.code == 1
    (wrong,) = [finding for finding in found.json()["findings"] if finding["verdict"] == "missing"]
    assert wrong["what"] == "user code" and "did you mean 'Model'?" in wrong["detail"]


@pytest.mark.parametrize(
    ("gpus", "workers", "keys", "verdict", "detail"),
    [
        ("", 1, "batch_size: 100", "ok", "no stage asks for one"),
        ("3", 2, "num_gpus: 0.5", "ok", "fits on 3, 2 workers"),
        ("", 1, "num_gpus: 1", "missing", "no GPU that may be used"),
        ("3", 1, "num_gpus: 0.6, concurrency: 2", "missing", "2 x 0.6"),
        ("3", 2, "num_gpus: 1", "missing", "2 workers ask for 1 GPU"),
    ],
)
def test_doctor_tells_whether_the_gpus_that_a_job_asks_for_are_there(tmp_path, monkeypatch, gpus, workers, keys, verdict, detail):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    job = JobFolder(tmp_path / "job", workers=f"{{max: {workers}}}")
    job.edit("batch_size: 100", keys)

    found = antinfer("doctor", job.folder, "--json")

    (shares,) = [finding for finding in found.json()["findings"] if finding["what"] == "gpu shares"]
    assert shares["verdict"] == verdict and detail in shares["detail"]
    assert found.code == (verdict == "missing")


@pytest.mark.parametrize("command", ["run", "resume", "preview", "plan", "status", "verify", "init", "doctor", "master", "worker"])
def test_help(command):
    shown = antinfer(command, "--help")

    assert shown.code == 0
    assert "Usage:" in shown.out and command in shown.out


# -- by hand, in several shells --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_takes_the_user_code_from_where_it_is_told(tmp_path):
    job = JobFolder(tmp_path / "job")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tempfile.mkdtemp(prefix="antinfer-")
    members = [start("master", job.folder, "--listen", f"unix://{folder}/m")]
    try:
        wait_until(lambda: (job.output / "_antinfer/job").exists() or members[0].poll() is not None)
        job.steps.rename(elsewhere / "steps.py")
        members.append(start("worker", "--master", f"unix://{folder}/m", "--base-dir", elsewhere))
        ended = [finish(member) for member in members]
    finally:
        for member in members:
            kill(member)
        shutil.rmtree(folder)
    assert [each.code for each in ended] == [0, 0], ended
    assert job.ids() == EVERY_ID


def test_master_and_workers_by_hand_with_a_token_and_a_store_on_a_url(tmp_path):
    job = JobFolder(tmp_path / "job", "steps:Gated", commit_interval="0.1s")
    token = tmp_path / "token"
    token.write_text("sesame\n")
    folder = tempfile.mkdtemp(prefix="antinfer-")
    address = f"unix://{folder}/m"
    members = []
    try:
        with valkey(tmp_path / "store", requirepass="secret") as server:
            url = f"redis://:secret@127.0.0.1:{server.port}/0"
            members.append(start("master", job.folder, "--listen", address, "--store", url, "--token-file", token))
            for name in ("one", "two"):
                members.append(start("worker", "--master", address, "--token-file", token, "--name", name))
            wait_until(lambda: job.committed() or members[0].poll() is not None)

            by_address = antinfer("status", address, "--token-file", token)
            by_output = antinfer("status", job.output, "--token-file", token, "--json")

            (job.folder / "go").touch()
            ended = [finish(member) for member in members]
    finally:
        for member in members:
            kill(member)
        shutil.rmtree(folder)
    assert [each.code for each in ended] == [0, 0, 0], ended
    assert by_address.code == 0, by_address
    assert f"of {ROWS:,} rows" in by_address.out
    told = by_output.json()
    assert told["output"] == str(job.output)
    assert told["phase"] == "running"
    assert 0 < told["rows_committed"] < ROWS
    assert {worker["worker"] for worker in told["workers"]} <= {"one", "two"}
    assert job.ids() == EVERY_ID
    assert antinfer("verify", job.output).code == 0
    report = json.loads((job.output / "_antinfer/report").read_text())
    assert set(report["workers"]) <= {"one", "two"}

"""Bad input and user code through the real command line: a clear error that names the thing and the way out, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.commands import ROWS, JobFolder, antinfer, antinfer_bound, check_mended, environment, interrupt_half_way, run

EVERY_ID = list(range(ROWS))


# -- the input -------------------------------------------------------------------------------------------------------------------------


def test_missing_path(tmp_path):
    job = JobFolder(tmp_path / "job", source="{type: parquet, path: dato/}")

    run(job).check_failure(1, str(job.folder / "dato"), "does not exist", "hint: Check the path")

    job.edit("dato/", "data/")
    check_mended(job)


@pytest.mark.parametrize(("name", "doing"), [("data/1.parquet", "read"), ("data", "list")], ids=["file", "folder"])
def test_unreadable_path(tmp_path, name, doing):
    job = JobFolder(tmp_path / "job")
    path = job.folder / name
    mode = path.stat().st_mode
    path.chmod(0)

    antinfer_bound("run", job.folder).check_failure(1, f"cannot {doing} {path}: permission denied", "hint: Check the permissions")

    path.chmod(mode)
    check_mended(job)


def test_folder_in_the_place_of_a_file(tmp_path):
    job = JobFolder(tmp_path / "job", source="{type: parquet, path: [data/0.parquet, data/1.parquet/x]}")

    run(job).check_failure(1, "1.parquet/x")


def test_glob_without_a_match(tmp_path):
    job = JobFolder(tmp_path / "job", source="{type: parquet, path: 'data/*.pq'}")

    run(job).check_failure(1, "no file matches", "data/*.pq", "hint: ")


def test_empty_file(tmp_path):
    job = JobFolder(tmp_path / "job")
    (job.data / "1.parquet").write_bytes(b"")

    run(job).check_failure(1, "1.parquet", "empty", "hint: Remove it, or give a pattern that leaves it out")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "arrow"])
def test_input_of_nothing_but_empty_files(tmp_path, kind):
    job = JobFolder(tmp_path / "job")
    empty = job.folder / "empty"
    empty.mkdir()
    (empty / f"1.{kind}").touch()

    ended = run(job, "--set", f"source.type={kind}", "--set", "source.path=empty", "--set", "carryover=[id]")

    ended.check_failure(1, str(empty), "is empty", "hint: ")


def test_column_of_the_source_that_is_not_there(tmp_path):
    job = JobFolder(tmp_path / "job")

    run(job, "--set", "source.columns=[idd]", "--set", "carryover=[]").check_failure(2, "column 'idd' not found", "hint: ", "'id'")


def test_output_among_the_input(tmp_path):
    job = JobFolder(tmp_path / "job")

    run(job, "--output", job.data).check_failure(2, "would be input as well")
    run(job, "--set", "source.path=data", "--output", job.data / "out").check_failure(2, "would be input as well")

    assert sorted(path.name for path in job.data.iterdir()) == ["0.parquet", "1.parquet"]


def test_data_set_of_no_rows_gives_a_complete_empty_output(tmp_path):
    job = JobFolder(tmp_path / "job")
    for name in ("0.parquet", "1.parquet"):
        job.write(name, range(0))

    ended = run(job)

    assert ended.code == 0, ended
    assert "0 rows in = 0 out + 0 quarantined" in ended.out
    audit = antinfer("verify", job.output, "--json")
    assert audit.code == 0
    assert audit.json()["ok"] and audit.json()["finished"]


@pytest.mark.parametrize("name", ["0.parquet", "1.parquet"], ids=["the first", "one behind what is planned"])
def test_truncated_parquet_file_is_named_and_mended_by_replacing_it(tmp_path, name):
    job = JobFolder(tmp_path / "job")
    whole = (job.data / name).read_bytes()
    (job.data / name).write_bytes(whole[: len(whole) // 2])

    run(job).check_failure(1, name, "truncated")

    (job.data / name).write_bytes(whole)
    check_mended(job)


def test_file_that_is_gone_before_it_is_planned_is_missed_unless_the_user_says_so(tmp_path):
    """Else a folder that lists less for a moment would make the job smaller, and nobody would know."""
    job = JobFolder(tmp_path / "job")
    (job.data / "1.parquet").write_bytes(b"PAR1")
    run(job).check_failure(1, "1.parquet")

    (job.data / "1.parquet").unlink()
    run(job).check_failure(1, "1 removed", "1.parquet", "--force")

    ended = antinfer("run", job.folder, "--force")
    assert ended.code == 0, ended
    assert "the input has changed behind what is planned" in ended.err and "1.parquet" in ended.err
    assert job.ids() == list(range(ROWS // 2))
    assert antinfer("verify", job.output).code == 0


def test_file_with_another_schema_than_its_siblings(tmp_path):
    job = JobFolder(tmp_path / "job")
    pq.write_table(pa.table({"id": ["a"], "x": [1.0]}), job.data / "1.parquet")

    run(job).check_failure(1, "1.parquet", "'id' has type string, the other files have int64")


def test_column_that_is_not_in_the_input_names_near_ones(tmp_path):
    job = JobFolder(tmp_path / "job", source="{type: parquet, path: data/, columns: [id, xx]}")

    run(job).check_failure(2, "'xx'", "Did you mean 'x'?")


@pytest.mark.parametrize(
    ("key", "value"),
    [("carryover", "[idd]"), ("quarantine", "{keep_columns: [idd]}")],
    ids=["carryover", "keep_columns"],
)
def test_column_named_elsewhere_in_the_job_file(tmp_path, key, value):
    job = JobFolder(tmp_path / "job", **{key: value})

    run(job).check_failure(2, key, "'idd'", "did you mean 'id'?", "hint: It has id, x")


def test_accumulator_over_a_column_that_is_not_in_the_output(tmp_path):
    job = JobFolder(tmp_path / "job", accumulators="{average: {type: mean, value: yy}}")

    run(job).check_failure(1, "no output column 'yy'", "Did you mean 'y'?")


def test_input_that_changed_since_the_plan(tmp_path):
    job = JobFolder(tmp_path / "job", "steps:Slow", commit_interval="0.1s")
    interrupt_half_way(job)
    done = job.committed()
    original = (job.data / "1.parquet").rename(tmp_path / "1.parquet")
    job.write("1.parquet", range(10))

    run(job).check_failure(1, "1.parquet", "not what the plan was made from", "hint: Restore the input")

    assert job.committed() == done
    original.replace(job.data / "1.parquet")
    check_mended(job)


# -- user code -------------------------------------------------------------------------------------------------------------------------


def test_user_code_in_no_module(tmp_path):
    job = JobFolder(tmp_path / "job", "stepz:Model")

    run(job).check_failure(1, "no module 'stepz'", str(job.folder), "did you mean 'steps'?", "hint: User code is looked up")

    job.edit("stepz", "steps")
    check_mended(job)


def test_user_code_that_is_not_in_its_module(tmp_path):
    job = JobFolder(tmp_path / "job", "steps:Modle")

    run(job).check_failure(1, "no 'Modle'", "steps.py", "did you mean 'Model'?")


def test_user_module_that_fails_to_import_keeps_its_traceback(tmp_path):
    job = JobFolder(tmp_path / "job")
    job.steps.write_text("import not_installed_anywhere\n")

    ended = run(job)

    ended.check_failure(1, "importing steps failed", "not_installed_anywhere")
    assert f'File "{job.steps}", line 1' in ended.err


def test_user_code_that_raises_keeps_its_traceback_whole_and_is_mended_by_editing_it(tmp_path):
    job = JobFolder(tmp_path / "job", "steps:Raises")

    ended = run(job)

    ended.check_failure(1, "predict 'Raises' (steps:Raises)", "weights are upside down", "hint: Nothing has succeeded yet")
    assert ended.err.count("Traceback (most recent call last)") == 1
    assert "in __call__" in ended.err and "in deeper" in ended.err
    job.edit('raise RuntimeError("the weights are upside down")', 'return {"y": batch["x"]}', job.steps)
    check_mended(job)


def test_class_that_cannot_be_built_keeps_its_traceback(tmp_path):
    job = JobFolder(tmp_path / "job", "steps:CannotBeBuilt")

    ended = run(job)

    ended.check_failure(1, "constructor raised RuntimeError: no weights here")
    assert "in __init__" in ended.err


@pytest.mark.parametrize(
    ("gpus", "workers", "keys", "said"),
    [
        ("", 1, {"num_gpus": 1}, ("asks for num_gpus: 1", "no GPU that may be used", "hint: Run it on a machine with a GPU")),
        ("3", 1, {"num_gpus": 0.6, "concurrency": 2}, ("2 x 0.6", "1 GPU (3)")),
        ("3", 2, {"num_gpus": 1}, ("2 workers ask for 1 GPU (", "1 x 1) each", "1 GPU (3), 0.5 for each", "hint: Run 1 at most")),
    ],
)
def test_gpus_that_are_not_there_are_told_before_anything_is_started(tmp_path, monkeypatch, gpus, workers, keys, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    job = JobFolder(tmp_path / "job", "steps:CannotBeBuilt")
    job.edit("batch_size: 100", ", ".join(f"{key}: {value}" for key, value in keys.items()))

    ended = run(job, "--workers", str(workers))

    ended.check_failure(1, *said)
    assert "no weights" not in ended.err and not job.output.exists()

    wanted = ", ".join(f"{key}={value}" for key, value in keys.items())
    script = f"import antinfer as ai, steps; ai.read_parquet('data').predict(steps.CannotBeBuilt, {wanted}).write_parquet('output')"
    ended = python(job.folder, f"{script}.run(workers={workers})")
    assert ended.returncode == 1 and said[1] in ended.stderr and "no weights" not in ended.stderr and not job.output.exists()


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        ("LosesRow", ("got 100 rows and returned 99", "flat_map")),
        ("ReturnsArray", ("must return a dict of columns, not ndarray", "hint: Return {'column': array}")),
        ("ChangesType", ("column 'y' is", "in one batch", "convert the result to one type in every batch")),
        ("ReturnsObjects", ("column 'y' holds values that cannot be written", "hint: Return numbers, strings")),
    ],
)
def test_predictor_that_breaks_its_contract(tmp_path, predict, said):
    job = JobFolder(tmp_path / "job", f"steps:{predict}")

    run(job).check_failure(1, f"steps:{predict}", *said)


SCRIPT = """
import antinfer as ai

def double(batch):
    return {"y": batch["x"] * 2}

if __name__ == "__main__":
    report = ai.read_parquet("data").map_batches(double).carryover("id").write_parquet("output").run()
    print(report["rows_out"])
"""


def python(folder: Path, source: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or source text as at a prompt."""
    call = [sys.executable, *([] if source.endswith(".py") else ["-c"]), source]
    return subprocess.run(call, cwd=folder, env=environment(), text=True, capture_output=True, timeout=90, check=False)


def test_function_of_a_script_run_as_main_works(tmp_path):
    job = JobFolder(tmp_path / "job")
    (job.folder / "script.py").write_text(SCRIPT)

    ended = python(job.folder, "script.py")

    assert (ended.returncode, ended.stdout) == (0, f"{ROWS}\n"), ended.stderr
    assert job.ids() == EVERY_ID


def test_function_from_a_notebook_or_a_prompt_is_refused_with_the_way_out(tmp_path):
    job = JobFolder(tmp_path / "job")

    ended = python(job.folder, SCRIPT)

    assert ended.returncode == 1
    last = ended.stderr[ended.stderr.index("UserCodeError") :]
    assert "double" in last and "file" in last
    assert not job.output.exists()

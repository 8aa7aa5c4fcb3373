"""What is counted in a disturbed job's output, and what is said about a job that failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import disturbed, faults
from benchmarks.disturbed import Outcome
from benchmarks.faults import Case, Size

SIZE = Size(rows=4096, kill_every_s=1.0, kill_master_every_s=1.0)
DONE = Outcome(
    seconds=12.0,
    status=0,
    lost=0,
    doubled=0,
    unreadable=0,
    calls=16,
    rows_called=4096,
    first_call_s=2.0,
    strikes=(5.0,),
    said="all is well",
)


def test_ids_are_counted_over_all_files_and_broken_ones_are_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2, 3], "score": [0.1, 0.2, 0.3]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [3, 4]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-10])
    (tmp_path / "_SUCCESS").touch()
    found, unreadable = disturbed.count_ids(tmp_path)
    assert found == {1: 1, 2: 1, 3: 2, 4: 1}
    assert unreadable == 1


def test_a_command_is_counted_against_what_it_should_have_written(tmp_path: Path) -> None:
    # No Python, whose start would take longer than the test.
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1, 2, 2, 9]}), tmp_path / "in" / "rows.parquet")
    command = ["sh", "-c", "echo 3 >> tally; echo 2 >> tally; cp -r in out; echo sorry; exit 7"]
    outcome = disturbed.run(tmp_path, command, {1, 2, 3, 4}, disturbed.leave_alone, give_up_s=60.0)
    assert (outcome.status, outcome.lost, outcome.doubled, outcome.calls, outcome.rows_called) == (7, 2, 1, 2, 5)
    assert outcome.said.strip() == "sorry"
    assert not outcome.is_done


def test_a_command_that_does_not_end_is_given_up_and_leaves_nothing_running(tmp_path: Path) -> None:
    outcome = disturbed.run(tmp_path, ["sh", "-c", "sleep 1000 & sleep 1000"], {1}, disturbed.leave_alone, give_up_s=0.2)
    assert outcome.status is None
    assert outcome.lost == 1
    assert disturbed.Running(tmp_path, ["true"]).process.wait() == 0
    assert not disturbed.processes.marked("no such mark", (tmp_path,))


def test_goodput_is_told_with_start_up_and_without() -> None:
    case = Case("a fault", "antinfer", ["python"], against="antinfer", goodput=0.75)
    results = faults.results_of(SIZE, case, DONE, replace(DONE, seconds=10.0))
    values = {result.what.rpartition(": ")[2]: (result.value, result.verdict) for result in results}
    assert values["goodput, start-up not counted"] == (0.8, "met")
    assert values["goodput, start-up counted"] == (pytest.approx(10 / 12), "-")
    assert values["ended by itself"] == (1.0, "met")


@pytest.mark.parametrize(("status", "words"), [(None, "gave no end after 12.0 s"), (1, "failed with status 1 after 12.0 s")])
def test_a_job_that_failed_gets_words_and_no_time(status: int | None, words: str) -> None:
    failed = replace(DONE, status=status, lost=5)
    results = faults.results_of(SIZE, Case("a fault", "antinfer", ["python"], against="antinfer", goodput=0.1), failed, DONE)
    assert not any("goodput" in result.what or "again" in result.what for result in results)
    assert words in results[0].what
    assert [result.verdict for result in results] == ["missed", "missed", "met"]
    assert results[0].details["last_words"] == "all is well"


def test_every_disturbed_case_comes_after_its_undisturbed_one() -> None:
    calm: set[str] = set()
    for case in [*faults.ours(SIZE), *faults.rays(SIZE)]:
        assert not case.against or case.against in calm
        if not case.against:
            assert case.disturb is None and not case.bad
            calm.add(case.who)


def test_one_row_in_a_thousand_raises_and_one_crashes() -> None:
    assert list(SIZE.bad("raise").values()) == ["none"] * 4
    assert list(SIZE.bad("crash").values()) == ["crash"]
    assert not SIZE.bad("")

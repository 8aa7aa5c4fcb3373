"""Ctrl-C, kill -9, and what is left behind: nothing, and a job that the same command resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.commands import ROWS, JobFolder, alive, antinfer, descendants, finish, kill, start, wait_until


@pytest.fixture
def job(tmp_path):
    # Twenty batches of 50 ms would be over too soon on a quick machine: batches of ten rows make it five seconds.
    job = JobFolder(tmp_path / "job", "steps:Slow", commit_interval="0.1s")
    job.edit("batch_size: 100", "batch_size: 10")
    return job


@pytest.fixture
def running(job):
    """The command at work on `job`, with something committed."""
    with at_work(job) as process:
        yield process


@contextmanager
def at_work(job: JobFolder) -> Iterator[subprocess.Popen[str]]:
    process = start("run", job.folder, "--workers", "2")
    try:
        wait_until(lambda: job.committed() or process.poll() is not None, why="nothing was committed")
        assert process.poll() is None, finish(process)
        yield process
    finally:
        kill(process)


def check_resumes(job: JobFolder) -> None:
    ended = antinfer("run", job.folder)
    assert ended.code == 0, ended
    assert job.ids() == list(range(ROWS))
    assert antinfer("verify", job.output).code == 0


def test_first_ctrl_c_commits_what_is_finished_and_the_same_command_resumes(job, running):
    before = job.committed()
    family = descendants(running.pid)
    assert len(family) >= 6  # a master, its store, two workers, two hosts, and their predictors

    running.send_signal(signal.SIGINT)
    ended = finish(running)

    assert ended.code == 130, ended
    assert "what was finished is committed" in ended.err and "hint: the same command resumes" in ended.err
    assert "Traceback" not in ended.err
    assert job.committed() >= before
    assert not alive(family)
    audit = antinfer("verify", job.output, "--json")
    assert audit.code == 4 and not audit.json()["finished"]
    assert not audit.json()["faults"], audit
    resumed = antinfer("resume", job.output)
    assert resumed.code == 0, resumed
    check_resumes(job)


def test_terminated_by_a_service_manager_it_drains_too(job, running):
    running.send_signal(signal.SIGTERM)

    assert finish(running).code == 130


def test_cancelled_from_elsewhere_it_says_so_and_the_same_command_resumes(job, running):
    said = antinfer("cancel", job.output, "--reason", "enough")
    ended = finish(running)

    assert said.code == 0, said
    assert ended.code == 130, ended
    assert "enough" in ended.err and "hint: the same command resumes" in ended.err and "no report" not in ended.err
    check_resumes(job)


def test_second_ctrl_c_ends_everything_at_once(job, running):
    family = descendants(running.pid)

    running.send_signal(signal.SIGINT)
    time.sleep(0.1)
    asked = time.monotonic()
    running.send_signal(signal.SIGINT)
    ended = finish(running)

    assert ended.code == 130, ended
    assert time.monotonic() - asked < 15
    # Those that die with their parent need an instant more than it.
    wait_until(lambda: not alive(family), 5, f"still there: {family}")


@pytest.mark.slow
def test_killed_it_takes_everything_with_it_and_the_same_command_resumes(job, running):
    family = descendants(running.pid)

    os.kill(running.pid, signal.SIGKILL)
    running.wait()

    wait_until(lambda: not alive(family), 10, f"still there: {family}")
    check_resumes(job)


@pytest.mark.slow
def test_nothing_is_left_after_a_whole_job(tmp_path):
    job = JobFolder(tmp_path / "job")
    process = start("run", job.folder)
    family: set[int] = set()
    try:
        while process.poll() is None:
            family |= descendants(process.pid)
            time.sleep(0.01)
        assert finish(process).code == 0
    finally:
        kill(process)
    assert not alive(family)
    assert not (job.output / "_antinfer/state").exists()
    assert not list((job.output / "_antinfer/staging").glob("*"))


@pytest.mark.slow
def test_status_of_a_running_job_by_its_output(tmp_path):
    # It cannot be over before it is looked at, however slow the machine is.
    job = JobFolder(tmp_path / "job", "steps:Gated", commit_interval="0.1s")
    with at_work(job) as process:
        told = antinfer("status", job.output, "--json").json()

        assert told["phase"] == "running"
        assert told["rows_total"] == ROWS
        assert 0 < told["rows_committed"] < ROWS
        process.send_signal(signal.SIGKILL)
        process.wait()
        gone = antinfer("status", job.output)
        gone.check_failure(1, "no master works on", "hint: go on with `antinfer resume")

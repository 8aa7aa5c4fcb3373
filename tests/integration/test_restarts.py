"""Processes of the one command that end again and again: it goes on for as long as the job gets on, and gives up when it does not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from antinfer.testing.chaos.processes import ancestors, command_of
from tests.integration.commands import ROWS, JobFolder, antinfer, descendants, finish, kill, start, wait_until

pytestmark = pytest.mark.slow

PACED = """
import os
import time


class Paced:
    # Takes its time until there is a file `go` beside this one.

    def __call__(self, batch):
        if not os.path.exists(os.path.join(os.path.dirname(__file__), "go")):
            time.sleep(0.05)
        return {"y": batch["x"] * 2}
"""


class Run:
    """``antinfer run`` with one worker, and what it has started."""

    def __init__(self, job: JobFolder) -> None:
        self.job = job
        self.process: subprocess.Popen[str] = start("run", job.folder, "--workers", "1")

    def find(self, words: str) -> list[int]:
        """Return the processes of the command whose command lines hold `words`."""
        return [pid for pid in descendants(self.process.pid) if words in command_of(pid)]

    def master(self) -> list[int]:
        """Return the master that rules: the one with a store."""
        return [pid for server in self.find("unixsocket") for pid in ancestors(server) if "-m antinfer.master " in command_of(pid)]

    def worker(self) -> list[int]:
        return self.find("-m antinfer.worker --")

    def wait_for_more(self) -> None:
        """Wait until something more is committed."""
        before = self.job.committed()
        wait_until(lambda: self.job.committed() > before or self.process.poll() is not None, why="nothing more was committed")
        assert self.process.poll() is None, finish(self.process)

    def check_the_rest(self) -> None:
        """Let the job go on undisturbed, to its end."""
        (self.job.folder / "go").touch()
        ended = finish(self.process)
        assert ended.code == 0, ended
        assert self.job.ids() == list(range(ROWS))
        assert antinfer("verify", self.job.output).code == 0


@pytest.fixture
def run(tmp_path) -> Iterator[Run]:
    job = JobFolder(tmp_path / "job", "steps:Paced", commit_interval="0.1s")
    job.steps.write_text(PACED)
    job.edit("batch_size: 100", "batch_size: 1")
    run = Run(job)
    yield run
    kill(run.process)


def test_a_worker_that_is_taken_away_again_and_again_costs_the_job_nothing(run: Run) -> None:
    for _ in range(10):
        run.wait_for_more()
        (worker,) = run.worker()
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda worker=worker: worker not in run.worker(), why="it did not leave")

    run.check_the_rest()


def test_a_master_that_is_killed_again_and_again_rules_a_job_to_its_end(run: Run) -> None:
    for _ in range(7):
        run.wait_for_more()
        # The command looks ten times a second once something has died.
        time.sleep(0.5)
        (master,) = run.master()
        os.kill(master, signal.SIGKILL)
        wait_until(lambda master=master: master not in run.master(), why="it is not gone")

    run.check_the_rest()


def test_a_master_that_dies_before_anything_is_done_is_given_up(run: Run) -> None:
    killed: set[int] = set()
    while run.process.poll() is None:
        for master in set(run.find("-m antinfer.master ")) - killed:
            os.kill(master, signal.SIGKILL)
            killed.add(master)
        time.sleep(0.02)

    ended = finish(run.process)
    ended.check_failure(1, "the master keeps dying, at last with killed by SIGKILL", "hint: the same command resumes the job")
    assert len(killed) == 6

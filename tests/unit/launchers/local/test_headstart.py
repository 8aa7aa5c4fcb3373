"""Processes that are started on a guess: taken over when it was right, gone without a trace when it was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from antinfer.cli.app import head_start
from antinfer.launchers.local.headstart import HeadStart


def exists(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["plan", "job.yaml"], ["verify", "run"], ["run", "--help"], ["run", "job", "--launcher=ray"]]
)
def test_only_runs_get_a_head_start(words):
    assert head_start(words) is None


def test_discarded_processes_leave_nothing():
    early = HeadStart()
    early.start()
    pids = early.master.pid, early.start().pid

    early.discard()

    assert not any(map(exists, pids))
    assert not os.path.exists(early.folder)


def test_only_processes_with_the_right_settings_are_taken_over():
    early = HeadStart(verbose=True)
    early.start()

    assert not early.take(force=False, verbose=False, retry=0)

    assert not early.master.is_alive
    assert not os.path.exists(early.folder)


def test_processes_that_were_taken_over_are_not_discarded():
    early = HeadStart(force=True)
    early.start()
    try:
        assert early.take(force=True, verbose=False, retry=0)
        early.discard()

        assert early.master.is_alive
        assert early.start().is_alive
    finally:
        early.start().kill()
        early.master.kill()
        early.remove_folder()


def test_wrong_usage_leaves_nothing_of_a_head_start(tmp_path):
    command = [sys.executable, "-m", "antinfer", "run", "job.yaml", "--no-such-option"]

    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
    assert list(tmp_path.iterdir()) == []

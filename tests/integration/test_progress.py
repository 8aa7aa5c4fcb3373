"""What a run shows while it goes on: a live bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.integration.commands import JobFolder, command, environment, kill

HIDES_CURSOR = "\x1b[?25l"
BAR = "░"
HEADLINE = "of 1,000 rows"
"""Part of what a job of `Gated` shows; it is held until then."""


def run_held(job: JobFolder, ends: Callable[[], tuple[int, int]]) -> str:
    """Run a job until it shows how far it is, and then to its end; return all that it showed.

    Args:
        job: of ``steps:Gated``.
        ends: makes a pair of descriptors: what the job writes to the second can be read from the first.
    """
    ours, theirs = ends()
    settings = environment(TERM="xterm-256color", COLUMNS="140")
    process = subprocess.Popen(command("run", job.folder), stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=settings)
    os.close(theirs)
    shown = b""
    try:
        while more := read(ours):
            shown += more
            if HEADLINE.encode() in shown:
                (job.folder / "go").touch()
        assert process.wait(30) == 0, shown.decode()
    finally:
        kill(process)
        os.close(ours)
    return shown.decode()


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""  # nobody is left at the other end of the terminal


def test_a_terminal_shows_a_live_bar(tmp_path: Path) -> None:
    shown = run_held(JobFolder(tmp_path / "job", "steps:Gated"), pty.openpty)

    assert HIDES_CURSOR in shown
    assert re.search(rf"{BAR}+  [0-9,]+ {HEADLINE}", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)), shown
    assert "1 worker" in shown


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path) -> None:
    shown = run_held(JobFolder(tmp_path / "job", "steps:Gated"), os.pipe)

    assert re.search(rf"^[0-9,]+ {HEADLINE}", shown, re.MULTILINE), shown
    assert "\x1b" not in shown and BAR not in shown

"""One child process: its lines, its end, and the words for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from antinfer.launchers.processes import Process, explain_exit, keeps_dying

NO_MASTER = ["--master", "unix:///nowhere", "--name", "w"]


@pytest.mark.parametrize(
    ("code", "said"), [(3, "exit status 3"), (128 + 9, "killed by SIGKILL"), (128 + 100, "killed by signal 100")], ids=str
)
def test_ends_in_words(code: int, said: str) -> None:
    assert explain_exit(code) == said


def test_last_words_are_kept_for_whoever_gives_it_up() -> None:
    lines: list[tuple[str, str]] = []
    process = Process("w", "antinfer.worker", [])
    process.hear(lambda *line: lines.append(line))
    code = process.wait(20)
    assert code == 2
    assert ("w", process.last_lines[-1]) == lines[-1]
    assert "required: --master" in keeps_dying("worker w", code, "\n".join(process.last_lines))
    assert keeps_dying("worker w", 137, "").splitlines() == [
        "the worker w keeps dying, at last with killed by SIGKILL. Its last words:",
        "  (it said nothing)",
    ]


def test_a_signal_is_told_as_a_shell_tells_it() -> None:
    process = Process("w", "antinfer.worker", NO_MASTER)
    assert process.is_alive and process.poll() is None
    assert Path(f"/proc/{process.pid}").exists()
    process.kill()
    assert process.poll() == 128 + signal.SIGKILL


def test_one_that_does_not_listen_is_killed_in_the_end() -> None:
    process = Process("w", "antinfer.worker", NO_MASTER)
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    process.end(0.1)
    assert process.poll() == 128 + signal.SIGKILL


def test_input_of_one_that_is_gone_harms_nobody() -> None:
    process = Process("w", "antinfer.worker", NO_MASTER, takes_input=True)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(20) == 128 + signal.SIGKILL
    process.give("x" * 1_000_000)

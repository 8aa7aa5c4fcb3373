"""A command that is disturbed while it works, and what lies in its output afterwards, counted without either system's help."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.testing.chaos import processes
from antinfer.testing.chaos.processes import Process
from benchmarks.contest import usual_environment
from benchmarks.faults_job.steps import HOLDERS, TALLY

_ROOT: Final = Path(__file__).resolve().parents[1]
_LOOK_S: Final = 0.02
_GONE_S: Final = 20.0
"""What is left of a job that ended well should be gone after this time."""
_LAST_WORDS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one job, whose command may have been started more than once."""

    seconds: float
    """From the first start of the command to its last end, or to when it was given up."""
    status: int | None
    """Exit status of the last command; None: it did not end, and was given up."""
    lost: int
    """Rows that should be in the output and are not."""
    doubled: int
    """Rows in the output beyond the first of each id."""
    unreadable: int
    """Files in the output that are no Parquet."""
    calls: int
    rows_called: int
    """Rows in all calls of the model; the same row again counts again."""
    first_call_s: float
    """From the first start to the first call."""
    strikes: tuple[float, ...]
    """When something was killed or told to leave, in seconds since the first start."""
    said: str
    """The last words of the command."""

    @property
    def is_done(self) -> bool:
        return self.status == 0

    @property
    def worked_s(self) -> float:
        """Seconds from the first call of the model to the end; a second start of the command is in them."""
        return self.seconds - self.first_call_s

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "said"} | {"last_words": "" if self.is_done else self.said}


@dataclass
class Running:
    """A job under way in its folder, to those who disturb it."""

    folder: Path
    command: Sequence[str]
    began: float = field(default_factory=time.monotonic)
    first_call: float | None = None
    """Monotonic time at which the model was first called."""
    strikes: list[float] = field(default_factory=list)
    mark: str = field(default_factory=lambda: uuid4().hex)
    process: Process = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the command, for the first time or again."""
        log = self.folder / "log"
        # Ray would write a token into the home directory, and report its use.
        quiet = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        environment = usual_environment(PYTHONPATH=f"{_ROOT}:{self.folder}", **quiet) | {processes.MARK: self.mark}
        with log.open("ab") as out:
            popen = subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        self.process = Process(self.command[0], popen, log)

    def strike(self, pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
        """Send these processes a signal."""
        if processes.signal_all(pids, number):
            self.strikes.append(time.monotonic() - self.began)

    def rows_called(self) -> list[int]:
        """Return the rows of each call so far."""
        return self._numbers(TALLY)

    def holders(self) -> list[int]:
        """Return the living processes that hold a model."""
        return [pid for pid in self._numbers(HOLDERS) if processes.state_of(pid) not in "ZX"]

    def _numbers(self, name: str) -> list[int]:
        path = self.folder / name
        return list(map(int, path.read_text().split())) if path.exists() else []

    def living(self) -> list[int]:
        """Return every process of the job, also those that lost their parent or paint over their mark."""
        return processes.marked(self.mark, (self.folder,))


Disturb = Callable[[Running], None]
"""Is asked again and again whether it is time, and does it then."""


class Repeatedly:
    """Does something to the job every so many seconds from the first call on; when nobody is there to suffer it, a moment later."""

    def __init__(self, every_s: float, do: Disturb) -> None:
        self._every_s = every_s
        self._do = do

    def __call__(self, running: Running) -> None:
        if running.first_call is not None and time.monotonic() >= running.first_call + (len(running.strikes) + 1) * self._every_s:
            self._do(running)


class OfAnyHolder:
    """Sends a signal to what `victims` makes of a random process that holds a model."""

    def __init__(self, victims: Callable[[int], list[int]], seed: int, number: signal.Signals = signal.SIGKILL) -> None:
        self._victims = victims
        self._chance = random.Random(seed)
        self._number = number

    def __call__(self, running: Running) -> None:
        if holders := running.holders():
            running.strike(self._victims(self._chance.choice(holders)), self._number)


class Halfway:
    """Does something to the job once, when so many rows have been given to the model."""

    def __init__(self, rows: int, do: Disturb) -> None:
        self._rows = rows
        self._do: Disturb | None = do

    def __call__(self, running: Running) -> None:
        if self._do is not None and sum(running.rows_called()) >= self._rows:
            do, self._do = self._do, None
            do(running)


def kill_command_and_start_it_again(running: Running) -> None:
    """Kill the process that the user started, nothing else, and start the same command at once."""
    running.strike([running.process.pid])
    running.process.popen.wait()
    running.start()


def leave_alone(running: Running) -> None:
    """Disturb nothing."""


def run(folder: Path, command: Sequence[str], expected: Collection[int], disturb: Disturb, give_up_s: float) -> Outcome:
    """Run a command in `folder`, where it writes ``out``, and count what it wrote.

    Args:
        folder: with the job and ``in``; what an earlier run left there is removed.
        command: is started there.
        expected: ids that the output should hold, each once.
        disturb: what happens to it meanwhile.
        give_up_s: a command that takes longer than this is ended.
    """
    for left in ("out", "checkpoint"):
        shutil.rmtree(folder / left, ignore_errors=True)
    for left in (TALLY, HOLDERS, "log"):
        (folder / left).unlink(missing_ok=True)
    running = Running(folder, command)
    try:
        status = _watch(running, disturb, give_up_s)
        seconds = time.monotonic() - running.began
    finally:
        _end(running)
    calls = running.rows_called()
    found, unreadable = count_ids(folder / "out")
    return Outcome(
        seconds=seconds,
        status=status,
        lost=len(set(expected) - found.keys()),
        doubled=found.total() - len(found),
        unreadable=unreadable,
        calls=len(calls),
        rows_called=sum(calls),
        first_call_s=(running.first_call or running.began) - running.began,
        strikes=tuple(running.strikes),
        said=running.process.log[-_LAST_WORDS:],
    )


def _watch(running: Running, disturb: Disturb, give_up_s: float) -> int | None:
    while time.monotonic() < running.began + give_up_s:
        if not running.process.is_alive:
            return running.process.status
        if running.first_call is None and (running.folder / TALLY).exists():
            running.first_call = time.monotonic()
        disturb(running)
        time.sleep(_LOOK_S)
    return None


def _end(running: Running) -> None:
    """Give what ended well time to clear up behind itself, and end the rest: the next job shall have the machine alone."""
    if not running.process.is_alive:
        deadline = time.monotonic() + _GONE_S
        while running.living() and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
    while left := running.living():
        processes.signal_all(left, signal.SIGKILL)
    running.process.popen.wait()


def count_ids(folder: Path) -> tuple[Counter[int], int]:
    """Return how often each id is in the files of `folder`, and how many of them cannot be read."""
    found: Counter[int] = Counter()
    unreadable = 0
    for path in sorted(folder.glob("*.parquet")):
        try:
            found.update(pq.read_table(path, columns=["id"])["id"].to_pylist())
        except pa.ArrowInvalid:
            # Written half when its writer was killed: readers of the folder will stumble over it, and its rows are lost.
            unreadable += 1
    return found, unreadable


def agent_of(holder: int) -> list[int]:
    """Return the agent of the antinfer worker whose predictor is `holder`."""
    return [pid for pid in processes.ancestors(holder) if "-m antinfer.worker --" in processes.command_of(pid)]


def worker_of(holder: int) -> list[int]:
    """Return all processes of the antinfer worker whose predictor is `holder`."""
    agents = agent_of(holder)
    return [pid for pid in processes.every_process() if {pid, *processes.ancestors(pid)} & set(agents)]


def kill_master(running: Running) -> None:
    """Kill the master that ``antinfer run`` has started: the one with a store, not the one that waits to take its place."""
    owners = {pid for server in running.process.find("unixsocket") for pid in processes.ancestors(server)}
    running.strike([pid for pid in running.process.find("-m antinfer.master ") if pid in owners])


def python_command(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]

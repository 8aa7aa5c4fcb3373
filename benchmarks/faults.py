"""The same faults for antinfer and for Ray Data: a worker killed again and again, the command killed once, rows that raise, a row that
takes its process along; and for antinfer alone, workers that are told to leave, and the master killed once and again and again.

The model sleeps as long as a device would compute, so that the cores are left to the processes of the job. Every output is counted here.
What a contestant cannot do is told by what happened: no time stands for a job that failed.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import disturbed
from benchmarks.disturbed import Disturb, Halfway, OfAnyHolder, Outcome, Repeatedly
from benchmarks.report import Result

_JOB: Final = Path(__file__).parent / "faults_job"
_NAME: Final = "faults"
_SEED: Final = 20_000
_WORKERS: Final = 4
_FILES: Final = 16
_BATCH_ROWS: Final = 256
_BLOCK_ROWS: Final = 4 * _BATCH_ROWS
"""Of Ray Data: half a second of work. With smaller ones its tasks take longer than the model."""
_GIVE_UP: Final = 2.0
_GRACE_S: Final = 30.0
"""A job is given up that takes so many times as long as undisturbed, and so much longer."""
_LONGEST_S: Final = 300.0
"""An undisturbed one."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a measurement is."""

    rows: int
    kill_every_s: float
    """Workers; told to leave they are as often."""
    kill_master_every_s: float

    def bad(self, kind: str) -> Mapping[int, str]:
        """Return what stands in bad rows, by id."""
        chance = random.Random(_SEED)
        if kind == "raise":
            return dict.fromkeys(chance.sample(range(self.rows), self.rows // 1000), "none")
        return {chance.randrange(self.rows): "crash"} if kind == "crash" else {}


@dataclass(frozen=True, slots=True)
class Case:
    """One contestant under one fault."""

    fault: str
    who: str
    command: list[str]
    disturb: Callable[[], Disturb] | None = None
    """Makes what disturbs one run; None: nothing does."""
    bad: str = ""
    """Kind of bad rows in the input."""
    against: str = ""
    """The undisturbed contestant with the same settings; empty: this is one."""
    goodput: float | None = None
    """Its target, start-up not counted."""


def measure(quick: bool) -> list[Result]:
    """Return, for each contestant and fault, rows lost and doubled, goodput and rows computed again."""
    size = Size(_FILES * 10 * _BATCH_ROWS, 2.0, 1.5) if quick else Size(_FILES * 50 * _BATCH_ROWS, 5.0, 3.0)
    cases = ours(size)
    if find_spec("ray") is None:
        print("  Ray is not installed, our own half is measured alone: pip install 'antinfer[bench]'", file=sys.stderr, flush=True)
    else:
        cases += rays(size)
    return [result for case, outcome, calm in _run_all(size, cases) for result in results_of(size, case, outcome, calm)]


def ours(size: Size) -> list[Case]:
    """Return the cases of antinfer."""
    command = disturbed.python_command("antinfer", "run", "job.yaml", "--workers", str(_WORKERS), "--json")
    case = partial(Case, who="antinfer", command=command, against="antinfer")
    half = size.rows // 2
    return [
        Case("undisturbed", "antinfer", command),
        case(_killing(size), disturb=lambda: Repeatedly(size.kill_every_s, OfAnyHolder(disturbed.worker_of, _SEED)), goodput=0.75),
        case(
            f"a worker told to leave every {size.kill_every_s:g} s",
            disturb=lambda: Repeatedly(size.kill_every_s, OfAnyHolder(disturbed.agent_of, _SEED, signal.SIGTERM)),
            goodput=0.85,
        ),
        case("command killed half-way, started again", disturb=lambda: Halfway(half, disturbed.kill_command_and_start_it_again)),
        case("master killed half-way", disturb=lambda: Halfway(half, disturbed.kill_master), goodput=0.9),
        case(
            f"master killed every {size.kill_master_every_s:g} s",
            disturb=lambda: Repeatedly(size.kill_master_every_s, disturbed.kill_master),
            goodput=0.9,
        ),
        case("one row in a thousand raises", bad="raise", goodput=1 / 1.3),
        case("one row crashes its process", bad="crash", goodput=1 / 1.3),
    ]


def rays(size: Size) -> list[Case]:
    """Return the cases of Ray Data, each with the settings that suit the fault best."""
    half = size.rows // 2
    keeping = ["--checkpoint", "checkpoint"]
    restart = "command killed half-way, started again"
    return [
        Case("undisturbed", "Ray Data", _ray()),
        Case("undisturbed", "Ray Data with checkpoints", _ray(*keeping)),
        Case(
            _killing(size),
            "Ray Data",
            _ray(),
            lambda: Repeatedly(size.kill_every_s, OfAnyHolder(lambda pid: [pid], _SEED)),
            against="Ray Data",
        ),
        Case(
            restart,
            "Ray Data with checkpoints",
            _ray(*keeping),
            lambda: Halfway(half, disturbed.kill_command_and_start_it_again),
            against="Ray Data with checkpoints",
        ),
        Case(restart, "Ray Data", _ray(), lambda: Halfway(half, disturbed.kill_command_and_start_it_again), against="Ray Data"),
        Case(
            "one row in a thousand raises",
            "Ray Data, max_errored_blocks",
            _ray("--errored-blocks", "-1", block_rows=_BATCH_ROWS),
            bad="raise",
            against="Ray Data",
        ),
        Case("one row in a thousand raises", "Ray Data, caught by the actor", _ray("--catching"), bad="raise", against="Ray Data"),
        Case("one row crashes its process", "Ray Data", _ray(), bad="crash", against="Ray Data"),
        Case(
            "one row crashes its process",
            "Ray Data, max_task_retries and max_errored_blocks",
            _ray("--task-retries", "3", "--errored-blocks", "-1"),
            bad="crash",
            against="Ray Data",
        ),
    ]


def _killing(size: Size) -> str:
    return f"a worker killed every {size.kill_every_s:g} s"


def _ray(*options: str, block_rows: int = _BLOCK_ROWS) -> list[str]:
    sizes = ["--actors", str(_WORKERS), "--batch-rows", str(_BATCH_ROWS), "--block-rows", str(block_rows)]
    return disturbed.python_command("benchmarks.peers.ray_faults", "in", "out", *sizes, *options)


def _run_all(size: Size, cases: list[Case]) -> Iterator[tuple[Case, Outcome, Outcome | None]]:
    calm: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="antinfer-bench-") as name:
        folders = {kind: _make(Path(name, kind or "clean"), size, kind) for kind in ("", "raise", "crash")}
        for case in cases:
            expected = set(range(size.rows)) - size.bad(case.bad).keys()
            reference = calm.get(case.against)
            give_up_s = _LONGEST_S if reference is None else _GIVE_UP * reference.seconds + _GRACE_S
            disturb = case.disturb() if case.disturb else disturbed.leave_alone
            outcome = disturbed.run(folders[case.bad], case.command, expected, disturb, give_up_s)
            print(f"  {case.who}, {case.fault}: {told(outcome)}", file=sys.stderr, flush=True)
            _check(case, outcome)
            if not case.against:
                calm[case.who] = outcome
            yield case, outcome, reference


def _make(folder: Path, size: Size, kind: str) -> Path:
    shutil.copytree(_JOB, folder)
    source, bad, rows = folder / "in", size.bad(kind), size.rows // _FILES
    source.mkdir()
    for index in range(_FILES):
        ids = range(index * rows, (index + 1) * rows)
        table = pa.table({"id": ids, "text": [bad.get(row, str(row)) for row in ids]})
        pq.write_table(table, source / f"rows-{index:03d}.parquet", row_group_size=5 * _BATCH_ROWS)
    return folder


def _check(case: Case, outcome: Outcome) -> None:
    """Raise RuntimeError where a measurement would say nothing."""
    if not case.against and (not outcome.is_done or outcome.lost or outcome.doubled):
        raise RuntimeError(f"{case.who} fails undisturbed: {told(outcome)}\n{outcome.said}")
    if case.disturb and not outcome.strikes:
        raise RuntimeError(f"{case.who} was done before it could be disturbed: {case.fault}")


def told(outcome: Outcome) -> str:
    """Say in words how a job ended and what is in its output."""
    end = "gave no end" if outcome.status is None else "done" if outcome.is_done else f"failed with status {outcome.status}"
    words = [f"{end} after {outcome.seconds:.1f} s", f"{outcome.lost:,} rows lost", f"{outcome.doubled:,} doubled"]
    words += [f"{len(outcome.strikes)} struck"] if outcome.strikes else []
    words += [f"{outcome.unreadable} files unreadable"] if outcome.unreadable else []
    return ", ".join(words)


def results_of(size: Size, case: Case, outcome: Outcome, calm: Outcome | None) -> list[Result]:
    """Return what a run says; `calm` is the undisturbed one, None for that one itself."""
    details = {"observed": told(outcome), "command": case.command[1:], "rows": size.rows, "seed": _SEED, **outcome.to_json()}
    what = f"{case.fault}: {case.who}"
    # Promised are our own figures alone.
    is_ours = case.who == "antinfer"
    none, one = (0.0, 1.0) if is_ours else (None, None)
    end = what if outcome.is_done else f"{what}: {told(outcome)}"
    results = [
        Result(_NAME, f"{end}: ended by itself", (float(outcome.is_done),), "of 1 job", one, details=details),
        Result(_NAME, f"{what}: rows lost", (outcome.lost,), "rows", none, at_least=False),
        Result(_NAME, f"{what}: rows doubled", (outcome.doubled,), "rows", none, at_least=False),
    ]
    if not outcome.is_done:
        return results
    again = 100 * (outcome.rows_called / size.rows - 1)
    results.append(Result(_NAME, f"{what}: rows computed again", (again,), "% of all"))
    if calm is None:
        return [*results, Result(_NAME, f"{what}: whole command", (outcome.seconds,), "s")]
    worked = {"undisturbed": calm.worked_s, "disturbed": outcome.worked_s}
    whole = {"undisturbed": calm.seconds, "disturbed": outcome.seconds}
    return [
        *results,
        _goodput(f"{what}: goodput, start-up not counted", worked, case.goodput),
        _goodput(f"{what}: goodput, start-up counted", whole, None),
    ]


def _goodput(what: str, seconds: Mapping[str, float], target: float | None) -> Result:
    return Result(_NAME, what, (seconds["undisturbed"] / seconds["disturbed"],), "x", target, details={"seconds": dict(seconds)})

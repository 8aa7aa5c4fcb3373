"""``profile``: measure each stage of a job alone, say what that promises, compare it with what a run has reached."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from antinfer.cli import keptprofiles, profiletable, render
from antinfer.errors import Interrupted, UsageError
from antinfer.spec.canonical import document_json
from antinfer.spec.load import absolute_path, load_job
from antinfer.worker.profiling.advice import advise
from antinfer.worker.profiling.comparison import compare
from antinfer.worker.profiling.model import Profile, forecast

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec


def profile(
    job: Path,
    overrides: Sequence[str],
    *,
    rows: int | None,
    seconds: float,
    save: Path | None,
    compare_with: str | None,
    as_json: bool,
) -> None:
    spec = load_job(job, overrides)
    report = None if compare_with is None else _read_report(compare_with)
    found = keptprofiles.recall(spec, save) if report is not None else None
    if found is None:
        found = _measure(spec, rows, seconds)
        keptprofiles.remember(spec, _as_data(found), save)
    if report is not None:
        _show_comparison(found, report, as_json)
    else:
        _show(found, as_json)


# -- measuring ---------------------------------------------------------------------------------------------------------------------------


def _measure(spec: JobSpec, rows: int | None, seconds: float) -> Profile:
    """Have a process of its own measure: it runs user code, and whatever becomes of it, nothing of it stays."""
    from antinfer.launchers.outcome import Outcome
    from antinfer.worker.predictors.wire import Channel

    folder = tempfile.mkdtemp(prefix="antinfer-profile-")
    ours, theirs = socket.socketpair()
    try:
        with _interruptible(), profiletable.steps() as say:
            command = [sys.executable, "-m", "antinfer.worker.profiling", str(theirs.fileno()), str(os.getpid())]
            # A group of its own: Ctrl-C is for us, and we end it; its own processes end with it.
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0)
            theirs.close()
            try:
                channel = Channel(ours)
                channel.send({"is": "setup", "job": document_json(spec), "rows": rows, "seconds": seconds, "folder": folder})
                made = _listen(channel, say)
            finally:
                process.kill()
                process.wait()
        if "outcome" in made:
            raise Outcome(**made["outcome"]).to_error()
        return Profile.from_json(made["profile"])
    finally:
        ours.close()
        theirs.close()
        shutil.rmtree(folder, ignore_errors=True)


def _listen(channel: Any, say: Callable[[str], None]) -> dict[str, Any]:
    while (message := channel.receive()) is not None:
        data: dict[str, Any] = message.data
        if data["is"] != "step":
            return data
        say(data["text"])
    raise UsageError(
        "the process that measured died", hint="User code that runs in threads may have killed it: `antinfer preview JOB` shows where."
    )


@contextmanager
def _interruptible() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("stopped; nothing was written") from None
    finally:
        signal.signal(signal.SIGTERM, before)


# -- showing -----------------------------------------------------------------------------------------------------------------------------


def _as_data(found: Profile) -> dict[str, Any]:
    from dataclasses import asdict

    expected = forecast(found)
    return {"profile": found.to_json(), "forecast": asdict(expected), "advice": advise(found, expected)}


def _show(found: Profile, as_json: bool) -> None:
    if as_json:
        render.as_json(_as_data(found))
        return
    expected = forecast(found)
    profiletable.measurements(found)
    profiletable.ceilings(found, expected)
    typer.echo(advise(found, expected))


def _read_report(output: str) -> dict[str, Any]:
    from antinfer.storage import layout
    from antinfer.storage.place import open_place

    place = open_place(absolute_path(output, str(Path.cwd())))
    text = place.read(layout.REPORT)
    if text is None:
        raise UsageError(f"{output} holds no report", hint="It is written when a job is complete: `antinfer status` says how far it is.")
    report: dict[str, Any] = json.loads(text)
    return report


def _show_comparison(found: Profile, report: dict[str, Any], as_json: bool) -> None:
    compared = compare(found, forecast(found), report)
    if as_json:
        render.as_json(compared.to_json())
    else:
        profiletable.comparison(compared)

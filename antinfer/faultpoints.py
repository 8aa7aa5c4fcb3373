"""Fault points: named places in the product where a test can let something bad happen.

A point costs one look at a global unless the environment variable ``ANTINFER_FAULTPOINTS`` names a folder when the process starts. Then
each file in that folder arms one point once. It is called ``<point>`` or ``<point>.<anything>`` and holds a JSON object (`Plan`). Of the
processes that come by, the one that renames it into ``claimed/`` has it; it leaves a proof in ``fired/`` under the same name *before* it
does what the file says. ``antinfer.testing.chaos.points`` writes and reads these files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final, TypedDict

VARIABLE: Final = "ANTINFER_FAULTPOINTS"
CLAIMED: Final = "claimed"
FIRED: Final = "fired"

POINTS: Final[Mapping[str, str]] = {
    # From a lease to a staged object, in the stage host and its predictors.
    "host.read": "a reader has read rows of a range",
    "predictor.load": "a predictor process is about to load its user code",
    "user.call": "user code is about to be called with a batch or a row, in a predictor process or a thread of the host",
    "predictor.answer": "a predictor process has a result and has not sent it",
    "part.open": "a writer begins a part",
    "part.close": "all rows of a part are in its local files, which are not closed",
    "commit.stage": "the local files of a part are closed, and nothing of it is staged",
    "commit.staged": "all objects of a part are staged and durable; nobody has heard of it",
    # From a staged object to the answer, in the agent and the master.
    "commit.told": "the agent has heard from its host that a part is staged",
    "commit.sent": "the agent has put a request with commits on its stream",
    "commit.received": "the master has taken in a request with commits",
    "commit.decided": "the engine has decided on a batch of events; nothing of it is durable",
    "store.sent": "the store was sent commands and has not answered",
    "commit.durable": "a batch is durable; no answer and no effect has left",
    "commit.answered": "answers are about to leave, and effects to begin",
    "commit.confirmed": "the agent has been told what became of commits",
    # From the answer to the final name, and everything else that a master does to an output place.
    "publish.begin": "commits are about to be published",
    "publish.object": "one object of a commit has its final name; others of it may not",
    "publish.done": "all objects of some commits have their final names; the engine has not heard",
    "flush.begin": "records are about to be written into a chunk of the manifest",
    "flush.done": "a chunk of the manifest is written; the engine has not heard",
    "collect.begin": "staged garbage is about to be deleted",
    "sweep.begin": "staging of earlier reigns is about to be deleted",
    "recover.begin": "commits that the store remembers are about to be published by a new reign",
    "list.begin": "the output is about to be listed, to rebuild the state from it",
    "audit.begin": "the output is about to be audited for parts that nobody committed",
    "epoch.claimed": "a master has claimed an epoch in the output place and not in the store",
    "epoch.stored": "a master has claimed its epoch in both places and done nothing with it",
    "round.open": "a retry round is about to be opened",
    "round.opened": "a retry round is open; the job that retries has not left its mark",
    "round.marked": "the job that retries has left its mark; the older mark of success may still be there",
    "seal.begin": "all is audited; the final manifest is not written",
    "seal.manifest": "the final manifest is written; the report is not",
    "seal.report": "the report is written; the mark of success is not",
    "seal.success": "the mark of success is written; nobody has heard",
    # Single operations of an output place; an error raised here is met like one of the operating system.
    "storage.source": "rows of the input are about to be taken in",
    "storage.spool": "a folder or a draft for local files is about to be made",
    "storage.part": "a local part file is about to be opened, written to or closed",
    "storage.stage": "one file is about to be staged",
    "storage.publish": "one staged object is about to be given its final name",
    "storage.write": "a small object is about to be written",
    "storage.read": "a small object is about to be read",
    "storage.list": "a folder is about to be listed",
    "storage.remove": "objects are about to be deleted",
    "storage.claim": "an epoch is about to be claimed",
    # Messages between agent and master; `drop` and `duplicate` mean something here alone.
    "worker.send": "a message to the master is about to be put on the stream",
    "worker.receive": "a message of the master has come in",
    "master.send": "a message to a worker is about to be put on its stream",
    "master.receive": "a message of a worker has come in",
}
"""Every point, and what is true when a process gets there."""


class Plan(TypedDict, total=False):
    """What a file that arms a point may hold."""

    action: str
    """``kill`` ``term`` ``stop`` ``segv`` ``abort`` ``exit`` the process; ``delay`` or ``hang`` it; raise an ``error``; ``drop`` or
    ``duplicate`` a message; ``note`` that it came by."""
    seconds: float
    """How long `delay` takes, and after how long a ``stop`` is undone (without it: by whoever armed the point)."""
    errno: str
    """Name of the operating system's error that ``error`` raises, such as ``ENOSPC``."""
    message: str
    """``error`` without an `errno` raises a RuntimeError with this text, as user code would."""
    status: int
    """Exit status for ``exit``."""
    where: Mapping[str, str]
    """Fires only where each of these words about the point has this value; ``program`` and ``pid`` are known at every point."""
    row: Mapping[str, object]
    """Fires only where user code is about to be called with a row that has these values: a poison row."""
    after: int
    """Visits of one process to let pass first."""
    times: int
    """Visits to befall, here and in other processes, 0 for all to come; each leaves a proof of its own. Usually 1."""


class _Points:
    """The points of this process, armed through the files of a folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._visits: dict[str, int] = {}
        self._program = " ".join(sys.orig_argv[1:])

    def visit(self, point: str, what: Mapping[str, object]) -> str:
        """Let the first thing happen that is planned for this point; return the action where the caller has to take it."""
        try:
            names = sorted(name for name in os.listdir(self._folder) if name == point or name.rpartition(".")[0] == point)
        except FileNotFoundError:
            return ""  # whoever arms points has gone
        for name in names:
            plan = self._claim(name, what)
            if plan is not None:
                return _act(plan, point)
        return ""

    def _claim(self, name: str, what: Mapping[str, object]) -> Plan | None:
        """Return the plan in the file `name` if it is for us, and nobody else can have it any more; the proof is written."""
        import json

        path = os.path.join(self._folder, name)
        try:
            with open(path, "rb") as file:
                plan: Plan = json.loads(file.read())
        except FileNotFoundError:
            return None
        told = {**{key: str(value) for key, value in what.items() if key != "rows"}, "program": self._program, "pid": str(os.getpid())}
        if not all(_fits(told.get(key, ""), value, part=key == "program") for key, value in plan.get("where", {}).items()):
            return None
        if "row" in plan and not _has_row(what.get("rows"), plan["row"]):
            return None
        self._visits[name] = self._visits.get(name, 0) + 1
        if self._visits[name] <= plan.get("after", 0):
            return None
        times = plan.get("times", 1)
        proof = name if times == 1 else f"{name}.{os.getpid()}-{self._visits[name]}"
        if times == 1:
            try:
                os.rename(path, os.path.join(self._folder, CLAIMED, name))
            except FileNotFoundError:
                return None  # another process was quicker
        elif times > 1 and not self._claim_one_of(name, times):
            return None
        self._prove(proof, name, plan, told)
        return plan

    def _claim_one_of(self, name: str, times: int) -> bool:
        for number in range(times):
            try:
                os.close(os.open(os.path.join(self._folder, CLAIMED, f"{name}.{number}"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                return True
            except FileExistsError:
                continue
        return False

    def _prove(self, proof: str, name: str, plan: Plan, told: Mapping[str, str]) -> None:
        import json
        import time

        draft = os.path.join(self._folder, CLAIMED, f"{proof}.draft")
        words = {
            "armed": name,
            "action": plan["action"],
            "pid": os.getpid(),
            "at": time.time(),
            # The same for all processes of one machine, and no step of the clock disturbs it.
            "monotonic": time.monotonic(),
            "what": dict(told),
        }
        with open(draft, "w", encoding="utf-8") as file:
            file.write(json.dumps(words))
        os.rename(draft, os.path.join(self._folder, FIRED, proof))


def _fits(value: str, wanted: str, *, part: bool) -> bool:
    return wanted in value if part else value == wanted


def _has_row(rows: Any, wanted: Mapping[str, object]) -> bool:
    """Tell whether `rows`, a record batch or one row as a mapping, has a row with the values `wanted`."""
    if isinstance(rows, Mapping):
        return all(name in rows and rows[name] == value for name, value in wanted.items())
    if rows is None or not set(wanted) <= set(rows.schema.names):
        return False
    columns = [rows.column(name).to_pylist() for name in wanted]
    return tuple(wanted.values()) in set(zip(*columns, strict=True))


def _act(plan: Plan, point: str) -> str:
    import signal
    import time

    action = plan["action"]
    signals = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "segv": signal.SIGSEGV, "abort": signal.SIGABRT, "stop": signal.SIGSTOP}
    match action:
        case "stop" | "kill" | "term" | "segv" | "abort":
            if action == "stop" and "seconds" in plan:
                _continue_after(plan["seconds"])
            os.kill(os.getpid(), signals[action])
        case "exit":
            os._exit(plan.get("status", 1))
        case "delay":
            time.sleep(plan.get("seconds", 1.0))
        case "hang":
            while True:
                time.sleep(3600)
        case "error":
            raise _error(plan, point)
        case "drop" | "duplicate":
            return action
        case "note":
            pass
        case _:
            raise ValueError(f"fault point {point}: no such action: {action!r}")
    return ""


def _error(plan: Plan, point: str) -> Exception:
    import errno

    name = plan.get("errno", "")
    if not name:
        return RuntimeError(plan.get("message", f"fault point {point}"))
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


def _continue_after(seconds: float) -> None:
    """Have somebody else wake us up: who is stopped cannot."""
    import subprocess

    subprocess.Popen(["/bin/sh", "-c", f"sleep {seconds}; kill -CONT {os.getpid()}"], stdin=subprocess.DEVNULL, start_new_session=True)


_points: _Points | None = None


def hit(point: str, **what: object) -> None:
    """A process has come to `point`; `what` tells more about it, for plans that are choosy.

    Raises what the plan says, which is what the operating system, or user code, could raise there.
    """
    if _points is not None:
        _points.visit(point, what)


def copies(point: str, **what: object) -> int:
    """A message has come to `point`; return how many of it go on: 1, but 0 for one that is dropped and 2 for one that is duplicated."""
    if _points is None:
        return 1
    return {"drop": 0, "duplicate": 2}.get(_points.visit(point, what), 1)


def use(folder: str | None) -> None:
    """Arm points of this process through the files of `folder` from now on; None disarms all."""
    global _points
    if folder:
        for name in (CLAIMED, FIRED):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
    _points = _Points(folder) if folder else None


use(os.environ.get(VARIABLE))

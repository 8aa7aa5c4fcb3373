"""Faults of the places that a job reads from and writes to: full, out of reach, or with damaged files in them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from antinfer.storage import layout
from antinfer.testing.chaos.blows import PROGRAMS, Blow
from antinfer.testing.chaos.crew import Crew
from antinfer.testing.chaos.hits import Armed, Hit, publishes
from antinfer.testing.chaos.pointed import describe, points_of
from antinfer.testing.chaos.points import Proof
from antinfer.testing.chaos.schedule import Strike
from antinfer.testing.chaos.watching import Sample

_SPACE: Final = ("storage.spool", "storage.part", "storage.stage", "storage.publish", "storage.write")
"""Where bytes are written into the output place."""
_OUTPUT: Final = (*_SPACE, "storage.read", "storage.list", "storage.remove", "storage.claim")
_INPUT: Final = ("storage.source",)
_STAGED: Final = "commit.staged"


def _fill_disk(crew: Crew, what: Strike, now: Sample) -> Armed:
    return _refuse(crew, what, _SPACE, "ENOSPC")


def _cut_off_output(crew: Crew, what: Strike, now: Sample) -> Armed | None:
    busy = [member for member in crew.workers if member.is_whole and now.leases_of(member.name)]
    candidates = [*([crew.master] if crew.master_listens else []), *busy]
    if not candidates:
        return None
    member = candidates[what.pick(len(candidates))]
    pids = [member.process.pid] if member is crew.master else member.process.find(PROGRAMS["host"])
    return _refuse(crew, what, _OUTPUT, "ETIMEDOUT", pid=str(pids[0])) if pids else None


def _cut_off_input(crew: Crew, what: Strike, now: Sample) -> Armed | None:
    return _refuse(crew, what, _INPUT, "ETIMEDOUT", program=PROGRAMS["host"])


def _refuse(crew: Crew, what: Strike, names: Iterable[str], error: str, **where: str) -> Armed:
    """Let these points report `error`, from the first who comes there for a while."""
    folder = points_of(crew)
    armed = [folder.arm(name, "error", errno=error, times=0, where=where) for name in names]

    def end() -> None:
        for name in armed:
            folder.disarm(name)

    def began(proof: Proof, before: Sample) -> Hit:
        crew.later(what.rule.lasts_s, end)
        return describe(proof, before)

    return Armed(tuple(armed), began)


def _damage_staged(crew: Crew, what: Strike, now: Sample) -> Armed:
    """Let a host die right after it has staged a part, and leave the part as a machine does whose power went: nobody may use it."""

    def damage(proof: Proof, before: Sample) -> Hit:
        path = Path(crew.cluster.spec.sink.path, layout.staged_path(proof.what["staged"], "part"))
        hit = describe(proof, before)
        hit.proof.update(_damage(path))
        return hit

    return Armed((points_of(crew).arm(_STAGED, "kill"),), damage)


def _damage_events(crew: Crew, what: Strike, now: Sample) -> Hit | None:
    chunks = sorted(Path(crew.cluster.spec.sink.path, layout.folder(layout.EVENTS)).glob("*.chunk"))
    if not chunks:
        return None
    return Hit("event log", _damage(chunks[what.pick(len(chunks))]), publishes(now))


def _damage(path: Path) -> dict[str, Any]:
    """Overwrite the second half of a file with zeros; return what shows it."""
    try:
        with path.open("r+b") as file:
            size = file.seek(0, 2)
            file.seek(size // 2)
            lost = file.write(bytes(size - size // 2))
    except FileNotFoundError:
        lost = 0  # a sweep was quicker
    return {"file": path.name, "bytes_lost": lost}


BLOWS: Final[dict[tuple[str, str], Blow]] = {
    ("fill", "disk"): _fill_disk,
    ("partition", "output"): _cut_off_output,
    ("partition", "input"): _cut_off_input,
    ("corrupt", "staged"): _damage_staged,
    ("corrupt", "events"): _damage_events,
}

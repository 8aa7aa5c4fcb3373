"""``story`` and ``events``: what the event log beside an output tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from antinfer.cli import render
from antinfer.core.codec import plain
from antinfer.core.story import rows_text
from antinfer.errors import OutputError, UsageError, VerifyFault
from antinfer.spec.load import absolute_path

if TYPE_CHECKING:
    from antinfer.core.records import CommitRecord
    from antinfer.storage.eventlog import Reign
    from antinfer.storage.lives import Life, ReignLife
    from antinfer.storage.place import OutputPlace
    from antinfer.storage.reigns import Replayed, Summary


_WIDEST: Final = 48
"""Characters of a column: what is longer, as the words of a process that died, does not push the others to the side."""


def story(output: str, what: str, *, as_json: bool) -> None:
    from antinfer.storage.lives import life_of

    found = re.fullmatch(r"(\d+)(?::(\d+))?", what)
    if found is None:
        raise UsageError(f"not a shard or a row of one: {what!r}", hint="Write SHARD, as in 12, or SHARD:ROW, as in 12:345.")
    place = _place(output)
    life = life_of(place, int(found[1]), None if found[2] is None else int(found[2]))
    if as_json:
        render.as_json(life.to_json())
    else:
        _print_life(place, life)


def events(output: str, cause: str | None, *, replay: bool, lines: bool, as_json: bool) -> None:
    from antinfer.storage.eventlog import reigns
    from antinfer.storage.reigns import every_event, replay_reign, summarise

    place = _place(output)
    found = reigns(place)
    if not found:
        raise OutputError(f"{place.uri} has no event log", hint="Has a master run there, with an event_log other than off?")
    if cause is not None:
        render.as_json(_find_event(place, found, cause))
    elif lines:
        for reign in found:
            for event in every_event(place, reign):
                render.as_json(event)
    elif replay:
        _print_replays(place, [replay_reign(place, reign) for reign in found], as_json=as_json)
    else:
        summaries = [summarise(place, reign) for reign in found]
        if as_json:
            render.as_json({"reigns": [plain(told) for told in summaries]})
        else:
            for told in summaries:
                _print_summary(told)


def _place(output: str) -> OutputPlace:
    from antinfer.storage.place import open_place

    return open_place(absolute_path(output, str(Path.cwd())))


# -- story ---------------------------------------------------------------------------------------------------------------------------------
def _print_life(place: OutputPlace, life: Life) -> None:
    typer.echo(f"shard {life.shard}{'' if life.row is None else f', row {life.row}'} of {place.uri}")
    if not life.reigns:
        typer.echo("no master has left an event log")
    for reign in life.reigns:
        _print_reign(reign)
    for record in life.records:
        typer.echo(f"committed: {_record_text(record)}")
    if not life.records:
        typer.echo("no commit of it is in the manifest yet")


def _print_reign(reign: ReignLife) -> None:
    from antinfer.storage.lives import happening_line

    began = "" if reign.began is None else f" began {_date(reign.began)} from {reign.source} ({reign.owner})"
    typer.echo(f"reign {reign.epoch}{began}")
    for when, columns in zip(
        (_clock(happening.when) for happening in reign.happenings),
        _aligned([happening_line(happening) for happening in reign.happenings]),
        strict=True,
    ):
        typer.echo(f"  {when}  {columns}")
    if not reign.happenings:
        typer.echo("  nothing happened to it")
    for note in reign.notes:
        typer.echo(f"  note: {note}")
    if reign.ended and reign.last_seen is not None:
        typer.echo(f"  {_clock(reign.last_seen)}  the reign ended: {reign.ended}")


def _record_text(record: CommitRecord) -> str:
    round = f"round {record.round}, " if record.round else ""
    return (
        f"{rows_text(record.rows)} {round}attempt {record.attempt} by {record.worker or 'unknown'}: "
        f"{record.rows_out:,} rows out, {record.rows_quarantined:,} quarantined, as {record.staged}"
    )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [min(_WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()


def _date(when: float) -> str:
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _clock(when: float) -> str:
    return _date(when).partition(" ")[2]


# -- events --------------------------------------------------------------------------------------------------------------------------------
def _print_summary(told: Summary) -> None:
    began = "" if told.began is None else f" began {_date(told.began)} ({told.owner})"
    typer.echo(f"reign {told.epoch}{began}")
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in told.kinds.items())
    what = f"{told.events:,} events in {told.chunks} chunk(s){': ' if kinds else ''}{kinds}"
    typer.echo(f"  {what}; {told.lines:,} lines of story")
    for note in told.notes:
        typer.echo(f"  note: {note}")
    if told.ended and told.until is not None:
        typer.echo(f"  ended {_date(told.until)}: {told.ended}")


def _find_event(place: OutputPlace, found: Sequence[Reign], cause: str) -> dict[str, Any]:
    from antinfer.storage.reigns import every_event

    if not re.fullmatch(r"\d+:\d+", cause):
        raise UsageError(f"not the id of an event: {cause!r}", hint="Write REIGN:EVENT, as in 1:204; `antinfer story` names them.")
    epoch = int(cause.partition(":")[0])
    for reign in found:
        for event in every_event(place, reign) if reign.epoch == epoch else ():
            if event["id"] == cause:
                return event
    raise UsageError(f"the event log of {place.uri} does not hold event {cause}")


def _print_replays(place: OutputPlace, told: Sequence[Replayed], *, as_json: bool) -> None:
    if as_json:
        render.as_json({"reigns": [plain(each) for each in told]})
    else:
        for each in told:
            same = f"{each.events:,} events in {each.batches:,} batches: the same documents, commands and story"
            typer.echo(f"reign {each.epoch}: {each.fault or same}")
    if any(each.fault for each in told):
        raise VerifyFault(f"{place.uri}: a reign could not be replayed to what it did")

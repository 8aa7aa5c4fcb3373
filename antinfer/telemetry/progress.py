"""Progress of a run: a live display on a terminal, plain lines everywhere else."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from antinfer.rpc.values import Status
from antinfer.telemetry import figures

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_PLAIN_EVERY_S: Final = 5.0
_BAR: Final = 32
_STAGE_BAR: Final = 10


class ProgressDisplay(Protocol):
    """What a run shows. Methods may be called from several threads."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def line(self, source: str, text: str) -> None: ...
    def status(self, status: Status | None) -> None: ...


class PlainProgress:
    """A line every few seconds on standard error."""

    def __init__(self) -> None:
        self._next = 0.0
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def line(self, source: str, text: str) -> None:
        print(f"[{source}] {text}", file=sys.stderr, flush=True)  # noqa: T201

    def status(self, status: Status | None) -> None:
        if status is None or time.monotonic() < self._next:
            return
        text = figures.headline(status)
        if text != self._last:
            print(text, file=sys.stderr, flush=True)  # noqa: T201
            self._last = text
        self._next = time.monotonic() + _PLAIN_EVERY_S


class LiveProgress:
    """A bar, the stages and how busy they are, and below it whatever the processes say; repainted in place."""

    def __init__(self, console: Console, job: str) -> None:
        self._console = console
        self._job = job
        self._live: Live | None = None
        self._status: Status | None = None

    def __enter__(self) -> Self:
        # Here, not on top: rich takes 60 ms to import, in which the processes of the run already start.
        from rich.live import Live

        self._live = Live(self._paint(), console=self._console, refresh_per_second=4, transient=True)
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def line(self, source: str, text: str) -> None:
        self._console.print(f"[{source}] {text}", markup=False, highlight=False)

    def status(self, status: Status | None) -> None:
        if status is not None:
            self._status = status
        if self._live is not None:
            self._live.update(self._paint())

    def _paint(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        status = self._status
        if status is None:
            return Text(f"{self._job}: starting")
        share = status.rows_committed / status.rows_total if status.rows_total else 0.0
        filled = round(share * _BAR)
        bar = Text("█" * filled, style="green") + Text("░" * (_BAR - filled), style="dim")
        head = Text(f"{self._job}  ") + bar + Text(f"  {figures.headline(status)}")
        table = Table.grid(padding=(0, 2))
        slowest = figures.bottleneck(stages := figures.stages(status))
        for stage in stages:
            filled = round(stage.busy * _STAGE_BAR)
            table.add_row(
                f"  {stage.name}",
                "▮" * filled + "▯" * (_STAGE_BAR - filled),
                f"{stage.busy:.0%}",
                Text(f"{stage.starved:.0%} starved  {stage.blocked:.0%} blocked", style="dim"),
                f"{figures.count(stage.rows_per_second)} rows/s",
                stage.copies,
                "◀ bottleneck" if stage.name == slowest else "",
            )
        count = len(status.workers)
        leases = sum(worker.leases for worker in status.workers)
        workers = Text(f"  {count} worker{'' if count == 1 else 's'}, {leases} lease{'' if leases == 1 else 's'}", style="dim")
        return Group(head, table, workers) if stages else Group(head, workers)


def make_progress(job: str, *, plain: bool = False) -> ProgressDisplay:
    """The live display when standard error is a terminal, else plain lines."""
    if plain or not sys.stderr.isatty():
        return PlainProgress()
    from rich.console import Console

    return LiveProgress(Console(stderr=True), job)


def quiet_line(source: str, text: str) -> None:
    """Swallow what the processes say; the caller wants only the result."""

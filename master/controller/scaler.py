"""Workers that are the master's to look after: one launcher for all reigns, one controller for each."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from antinfer.core.scaling.values import GiveBack
from antinfer.launchers.port import Launcher
from antinfer.master.backoff import Wait
from antinfer.master.controller.account import Account, Beginning
from antinfer.master.controller.shell import Elastic, Surroundings
from antinfer.master.loop import now_ms
from antinfer.rpc.values import GivenBack
from antinfer.spec.schema import WorkersSpec
from antinfer.spec.workers import desired_workers
from antinfer.storage.place import OutputPlace

_LONGEST = 30
"""Characters of a job's name in those of its workers, which may have 63."""


class Scaler:
    """Keeps the workers of a job while somebody rules it."""

    def __init__(self, make: Callable[[str], Launcher], spec: WorkersSpec, *, name: str, job: str, most: int) -> None:
        """
        Args:
            make: makes the launcher, given where the master listens.
            spec: what the job says about its workers.
            name: of the job, for people.
            job: its id.
            most: most workers where the job does not say.
        """
        self._make = make
        self._spec = spec
        self._stem = f"{_slug(name)}-{job[:6]}"
        self._most = most
        self._launcher: Launcher | None = None
        self._elastic: Elastic | None = None
        self._beginning = Beginning()

    async def during(
        self,
        ruling: Coroutine[Any, Any, None],
        around: Surroundings,
        place: OutputPlace,
        patiently: Wait,
        *,
        epoch: int,
        address: str,
        is_over: Callable[[], bool],
    ) -> None:
        """Look after the workers until `ruling` ends.

        Args:
            ruling: the reign.
            around: its master.
            place: where the output goes.
            patiently: waits for it when it is away.
            epoch: of the reign.
            address: where its master listens.
            is_over: tells, after the reign, whether the job is done or has failed: then workers are removed.
        """
        turning: asyncio.Task[None] | None = None
        try:
            launcher = await self._open(address)
            account = await asyncio.to_thread(patiently, "reading what workers have used up", partial(Account.open, place))
            began_at = self._beginning.at(account, now_ms())
            desired = desired_workers(self._spec, prefix=f"{self._stem}-{epoch}", most=self._most, started_at=began_at)
            elastic = self._elastic = Elastic(launcher, desired, account, around, lambda changed: changed.write(place))
            turning = asyncio.create_task(elastic.run())
            turning.add_done_callback(lambda task: _report(task, around.broken))
            await ruling
            if is_over():
                elastic.clear()
            await elastic.write()
        finally:
            # Where it was never awaited: one that nobody runs must not be lost in silence.
            ruling.close()
            self._elastic = None
            if turning is not None:
                turning.cancel()

    async def give_back(self, request: GiveBack) -> GivenBack | None:
        """Make the job smaller. See `Elastic.give_back`; None: nobody looks after the workers at the moment."""
        return None if self._elastic is None else await self._elastic.give_back(request)

    async def release(self) -> bool:
        """Let workers be started again; False: nobody looks after them at the moment."""
        if self._elastic is None:
            return False
        await self._elastic.release()
        return True

    async def close(self) -> None:
        """Let the launcher carry out what it was asked for; workers that are left stay."""
        if self._launcher is not None:
            await asyncio.to_thread(self._launcher.close)

    async def _open(self, address: str) -> Launcher:
        if self._launcher is None:
            running = asyncio.get_running_loop()
            launcher = self._make(address)

            def on_change() -> None:
                if not running.is_closed():
                    running.call_soon_threadsafe(self._changed)

            await asyncio.to_thread(launcher.open, on_change)
            self._launcher = launcher
        return self._launcher

    def _changed(self) -> None:
        if self._elastic is not None:
            self._elastic.changed()


def _report(task: asyncio.Task[None], broken: Callable[[BaseException], None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        broken(error)


def _slug(name: str) -> str:
    """Return `name` as far as the name of a pod may hold it."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST].strip("-") or "job"

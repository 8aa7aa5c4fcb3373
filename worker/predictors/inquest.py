"""What follows from the deaths of a predictor's processes: how long to wait before the next one, and what to run of the batch at fault."""

from __future__ import annotations

import random
import time

from antinfer.errors import MachineError, UserCodeError
from antinfer.worker.deaths import Death, DeathKind
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.pieces import BadRow
from antinfer.worker.pipeline.restarts import Restarts
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.care import Care
from antinfer.worker.predictors.feed import Feed
from antinfer.worker.predictors.sizing import Sizing

_DEATHS_OF_A_BATCH = 2
"""So often it is run as it is."""
_SHARES = 16
"""Then in so many parts: each wrong part costs a restart, and the right ones next to nothing, so few rounds are better than few parts."""
_DEATHS_IN_SETUP = 5
_DEATHS_AT_WORK = 12
"""In a row: to find one row among 4,096 takes seven at most."""
_HOPELESS_ROWS = 8
"""So many rows that each kill a process alone, before the job has any result, are a mistake in the code and not in the rows."""
_KILLS_OF_A_ROW = 2
"""A row is given up for so many kills without any sign that memory was short: one may have come from anywhere."""
_NOT_THE_CODE = (DeathKind.OUT_OF_MEMORY, DeathKind.KILLED, DeathKind.BROKEN_DEVICE)
"""Deaths that may be the fault of this machine alone."""


class Inquest:
    """Knows how often the processes of one predictor have died, and rules on it. Not to be used by two threads at once."""

    def __init__(self, node: int, stage: StageCall, feed: Feed, sizing: Sizing, care: Care) -> None:
        """Nobody has died yet.

        Args:
            node: Number of the stage in `feed`.
            stage: What the processes call.
            feed: Is told of rows that are given up, and of parts that a batch is run in.
            sizing: Is told when memory ran out.
            care: What the stage's predictors share: the ward for suspects, and what the user code has shown so far.
        """
        self._node = node
        self._stage = stage
        self._feed = feed
        self._sizing = sizing
        self._care = care
        self._setups = Restarts(_DEATHS_IN_SETUP, random.getrandbits(32))
        self._work = Restarts(_DEATHS_AT_WORK, random.getrandbits(32))
        self._convicted = care.standing.deaths
        """Rows of the stage that had been given up when a process died last."""

    def was_set_up(self) -> None:
        """Take note that a process has set the user code up."""
        self._setups.progressed()

    def has_worked(self) -> None:
        """Take note that one has computed something."""
        self._work.progressed()

    def pause(self, death: Death, *, in_setup: bool) -> float:
        """Return the seconds to wait before the next start. Raises what is to be told when there shall be none."""
        if in_setup:
            pause = self._setups.died(time.monotonic())
            what = f"while it was being set up, {self._setups.in_a_row} times in a row"
        else:
            if self._care.standing.deaths != self._convicted:
                # Deaths so far were not in vain: whichever process it was, it has found a row that they may have been about.
                self._convicted = self._care.standing.deaths
                self._work.progressed()
            pause = self._work.died(time.monotonic())
            what = f"at last; it has died {self._work.in_a_row} times without computing anything in between"
        if pause is not None:
            return pause
        text = f"{self._stage.where}: its process {death.how} {what}"
        if death.kind in _NOT_THE_CODE:
            raise MachineError(text, hint="If this machine is well, one that has more memory may do, or fewer copies, or smaller batches.")
        raise UserCodeError(text, hint="What it printed before is in the worker's log.", user_traceback=death.stack)

    def blame(self, call: Assembled, death: Death, resident: int, *, at_once: bool) -> list[Assembled]:
        """Return what the predictor has to run itself instead of a batch over which a process died that held `resident` bytes.

        That is the batch, its parts, or nothing: the ward has it, or it is the one row that is given up for the death. Only what died
        `at_once`, in a process that had answered nothing before, is given up: another row may have left it broken.
        """
        call.deaths += 1
        is_found_out = call.deaths >= _DEATHS_OF_A_BATCH or (
            death.kind is DeathKind.HANG and call.rows > 1 and not self._care.keeps_batches
        )
        if call.rows == 1 and is_found_out:
            call.deaths_at_once += at_once
            if call.deaths_at_once >= (_KILLS_OF_A_ROW if death.kind is DeathKind.KILLED else 1):
                self._convict(call, death)
                return []
        if death.kind is DeathKind.OUT_OF_MEMORY and is_found_out and call.rows > 1:
            self._sizing.ran_out(call)
        calls = call.shares(_SHARES) if is_found_out else [call]
        for _ in calls[1:]:
            self._feed.hold(self._node)
        # A kill from outside is hardly the fault of the rows.
        is_suspect = is_found_out or death.kind is not DeathKind.KILLED
        if is_suspect and self._care.ward is not None and self._care.ward.admit(calls, resident):
            return []
        return calls

    def _convict(self, call: Assembled, death: Death) -> None:
        standing = self._care.standing
        standing.deaths += 1
        if standing.deaths >= _HOPELESS_ROWS and not standing.has_results and not self._stage.tolerant:
            raise UserCodeError(
                f"{death.about(self._stage.where)} on every row so far",
                hint="Nothing has succeeded yet, so the code is at fault; set quarantine.max_fraction to 1 to quarantine such rows.",
                user_traceback=death.stack,
                hopeless=True,
            )
        self.has_worked()
        if death.kind is DeathKind.OUT_OF_MEMORY:
            self._sizing.acquit(call)
        reason = BadRow(f"{death.about(self._stage.where)}, with this row alone", death.stack, self._stage.name)
        self._feed.finish(self._node, call, Outcome.nothing([(0, reason)]), 0.0)

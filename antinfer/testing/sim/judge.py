"""Whether a job that was given up had to be: an account of its own of what the masters were told, held against the budgets.

A job is given up wrongly when what it was given up for has not happened as often, or not for as long, as its budget allows. Where several
counts are possible (a failure that was repeated, a worker that came back under another name) the account takes the higher one, so that
what it calls wrong is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from antinfer.core import commands
from antinfer.core.causes import Cause
from antinfer.core.config import EngineConfig
from antinfer.core.engine import Engine
from antinfer.core.events import Event, JobFailed, Requested
from antinfer.core.ids import SessionId
from antinfer.core.messages import Failure, FailureKind
from antinfer.testing.sim.scenario import Scenario

CANCELLED: Final = "somebody gave the job up"


class Account:
    """What one reign was told."""

    def __init__(self, troubles: Counter[int]) -> None:
        """`troubles`: by shard how often storage failed, in all reigns: the only one of these counts that outlives a master."""
        self._troubles = troubles
        self._heard: set[tuple[str, int]] = set()
        self._starts: list[str] = []
        """Workers whose pipeline could not be set up, since the last commit."""
        self._has_worked = False
        self._is_code_bad = False
        """What the last of them has shown, at that moment: others of the same batch may be ready an instant later."""
        self._gave_up: list[str] = []
        """Workers that gave up since the last commit."""
        self._before = (0, 0)
        """How many of both there were before what was heard last: a commit and a failure behind it may come in one request."""
        self._hindered_since: int | None = None
        self._at = 0
        self._fatal = 0
        self._is_cancelled = False

    def hear(self, engine: Engine, event: Event) -> None:
        """Take in what the engine is about to be told."""
        self._at = event.at
        self._before = (len(self._gave_up), len(self._starts))
        if isinstance(event, JobFailed):
            self._is_cancelled = True
        elif isinstance(event, Requested):
            request = event.request
            name = (request.session, request.number)
            if request.failures and name not in self._heard:
                self._heard.add(name)
                for failure in request.failures:
                    self._note(engine, request.session, failure, leaving=request.leaving)

    def see(self, ordered: Iterable[commands.Command]) -> None:
        """Take in what the engine made of it."""
        if any(isinstance(command, commands.Publish) for command in ordered):
            gave_up, starts = self._before
            del self._gave_up[:gave_up]
            del self._starts[:starts]
            self._has_worked = True

    def _note(self, engine: Engine, session: str, failure: Failure, *, leaving: bool) -> None:
        member = engine.sessions.get(SessionId(session))
        if failure.lease is None:
            worker = session if member is None else member.worker
            if failure.kind is FailureKind.FATAL:
                self._starts.append(worker)
                self._is_code_bad = self._shows_bad_code(engine)
            elif leaving:
                self._gave_up.append(worker)
        elif failure.kind is FailureKind.FATAL:
            self._fatal += 1
        elif failure.cause in (Cause.DISK_FULL, Cause.OUTPUT_REFUSED):
            self._hindered_since = self._at if self._hindered_since is None else self._hindered_since
        elif failure.kind is FailureKind.STORAGE and (lease := engine.ledger.leases.get(failure.lease)) is not None:
            self._troubles[lease.shard] += 1

    def excuses(self, scenario: Scenario, engine: Engine, reason: str) -> bool:
        """Tell whether `engine` had to give the job up for `reason`."""
        config = engine.config
        tests: tuple[tuple[str, Callable[[], bool]], ...] = (
            (CANCELLED, lambda: self._is_cancelled),
            ("rows are in quarantine", lambda: may_have_too_many_bad_rows(scenario, config)),
            ("(tried ", lambda: max(self._troubles.values(), default=0) >= config.storage_attempts),
            ("while nobody got on", lambda: len(self._gave_up) >= config.worker_failures),
            ("No module named", lambda: self._is_code_bad),
            ("the output place refuses", lambda: self._has_been_hindered(config)),
            ("the code fails", lambda: bool(scenario.fatal) and self._fatal > 0),
            ("another output schema", lambda: bool(scenario.odd)),
            ("the input changed", lambda: bool(scenario.changing)),
        )
        return any(sign in reason and test() for sign, test in tests)

    def _shows_bad_code(self, engine: Engine) -> bool:
        """Nobody else is ready, and since the last commit some worker tried again and again to set the pipeline up; or, where nothing was
        ever committed, several could not, or all that there are."""
        budget = engine.config.starts
        members = [session for session in engine.sessions if not session.draining]
        others = [session for session in members if session.worker not in self._starts]
        if not self._starts or any(session.is_ready and session.stream is not None for session in others):
            return False
        has_all_failed = all(session.worker in self._starts for session in members)
        has_never_worked = not self._has_worked and (has_all_failed or len(set(self._starts)) >= budget.workers)
        return has_never_worked or len(self._starts) >= budget.tries

    def _has_been_hindered(self, config: EngineConfig) -> bool:
        return self._hindered_since is not None and self._at - self._hindered_since > config.hindrance.patience_ms


def guilty(scenario: Scenario) -> frozenset[tuple[int, int]]:
    """Return the rows that may be in quarantine for good reason."""
    return scenario.bad | scenario.flaky | scenario.poison


def may_have_too_many_bad_rows(scenario: Scenario, config: EngineConfig) -> bool:
    """Tell whether some order of commits puts more rows into quarantine than the budget allows at that moment."""
    budget, total = config.bad_rows, sum(scenario.rows)
    most = total if scenario.blames_rows else len(guilty(scenario))
    if budget.max_rows is not None and most > budget.max_rows:
        return True
    # The worst order has all bad rows first; of fewer rows than these a share is not judged but at the very end.
    return most > budget.max_fraction * min(total, max(budget.probation_rows, most))

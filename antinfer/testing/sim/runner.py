"""One run from its first event to the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from antinfer.core.journal import Divergence
from antinfer.testing.sim import lives
from antinfer.testing.sim.checks import Auditor
from antinfer.testing.sim.faults import Fault
from antinfer.testing.sim.scenario import Scenario
from antinfer.testing.sim.stage import Stage
from antinfer.testing.sim.world import Entry, Problem

_AFTERMATH_MS = 3_000
"""How long we watch a finished job: whoever slept wakes up, whatever was on its way arrives."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run. `(scenario, seed)` repeats it exactly."""

    scenario: str
    seed: int
    problems: tuple[Problem, ...]
    """Violations in the order they were found; empty: the run was as it must be."""
    entries: tuple[Entry, ...]
    took_ms: int
    """Virtual time until ``_SUCCESS``, or until patience ended."""
    events: int
    computed: Counter[tuple[int, int]]
    """How often each row (shard, offset) was computed."""
    faults: tuple[Fault, ...]
    """What went wrong on the way; given to `run` as a list, it goes wrong there again."""

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of the violations: ``lost``, ``doubled``, ``stuck``, ``wrong``, ``error``."""
        return frozenset(problem.kind for problem in self.problems)

    def transcript(self) -> str:
        """Return everything that happened, one line each, and the verdict."""
        lines = [f"scenario {self.scenario}, seed {self.seed}", *map(str, self.entries)]
        lines += [f"{problem.kind}: {problem.text}" for problem in self.problems] or ["no violation"]
        return "\n".join(lines)


def run(scenario: Scenario, seed: int, faults: Iterable[Fault] | None = None) -> Outcome:
    """Play `scenario` with the chances that `seed` decides. Deterministic; takes milliseconds.

    Args:
        scenario: what is played.
        seed: decides everything that chance decides.
        faults: what goes wrong; None: chance decides that too.
    """
    stage = Stage(scenario, seed, faults)
    auditor = Auditor(stage)
    stage.begin()
    world = stage.world
    _live(stage)
    while not _is_broken(world.problems) and (after := lives.next_life(stage)) is not None:
        stage.begin_again(*after)
        _live(stage)
    took = world.now
    if not stage.is_sealed:
        _blame_unfinished(stage)
    else:
        _watch_aftermath(stage)
        auditor.finish()
    stage.is_over = True
    _live_again(stage)
    return Outcome(
        scenario.name, seed, tuple(world.problems), tuple(world.entries), took, world.events, stage.computed, tuple(stage.luck.struck)
    )


def _live(stage: Stage) -> None:
    """Go on until the output is finished, the job is given up, or patience ends."""
    world, bound = stage.world, stage.calm_at + stage.scenario.patience_ms
    while not stage.is_sealed and not stage.given_up and world.now < bound and not _is_broken(world.problems):
        world.turn()


def _live_again(stage: Stage) -> None:
    """Tell fresh engines what the event logs of all reigns say."""
    for log in stage.logs:
        try:
            log.live_again()
        except (Divergence, ValueError) as error:
            stage.world.blame("error", f"an event log tells another story: {error}")


def _watch_aftermath(stage: Stage) -> None:
    world, until = stage.world, stage.world.now + _AFTERMATH_MS
    stage.is_fair = True
    stage.network.calm_down()
    stage.place.refuses_until = 0
    for party in (*stage.servers.values(), *stage.masters.values(), *stage.workers.values()):
        world.after(world.rng.randint(0, _AFTERMATH_MS // 3), party.resume)
    while world.now < until and world.turn():
        pass


def _blame_unfinished(stage: Stage) -> None:
    if "neither staged nor published" in stage.given_up or "not staged any more" in stage.given_up:
        stage.world.blame("lost", stage.given_up)
    elif stage.given_up:
        stage.world.blame("wrong", f"the job was given up: {stage.given_up}")
    elif not stage.world.problems:
        stage.world.blame("stuck", f"the job has not ended after {stage.world.now} ms")


def _is_broken(problems: list[Problem]) -> bool:
    return bool(problems) and any(problem.kind == "error" for problem in problems)

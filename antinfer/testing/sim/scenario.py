"""What a simulation is made of: a job, a cast, an output place, a store, weather, and stage directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from antinfer.core.budgets import BadRowBudget, RangeBudget, StorageBudget, WorkerBudget
from antinfer.core.config import EngineConfig
from antinfer.testing.sim.faults import Odds
from antinfer.testing.sim.store import Sync
from antinfer.worker.policy import HostPolicy, SessionPolicy

if TYPE_CHECKING:
    from antinfer.testing.sim.stage import Stage

Output = Literal["posix", "uploads", "copies"]

ENGINE = EngineConfig(
    job="sim",
    ttl_ms=600,
    grace_ms=150,
    heartbeat_ms=150,
    wait_ms=60,
    collect_ms=300,
    flush_records=3,
    flush_ms=120,
    tail_ms=60,
    copy_after_ms=500,
    elsewhere_ms=100,
    bad_rows=BadRowBudget(max_fraction=1.0),
    ranges=RangeBudget(split_after=2, quarantine_after=3, losses_after=3, first_ms=20, longest_ms=200),
    storage=StorageBudget(first_ms=40, longest_ms=400),
    workers=WorkerBudget(first_ms=20, longest_ms=200),
)
"""Policy with times small enough that every one of them passes in a run."""

SESSION = SessionPolicy(
    heartbeat_ms=150,
    repeat_ms=300,
    idle_ms=50,
    backoff_ms=20,
    longest_backoff_ms=200,
    break_ms=20,
    longest_break_ms=300,
    held_ms=200,
    grace_ms=600,
    host=HostPolicy(first_pause_ms=20, longest_pause_ms=200),
)


@dataclass(frozen=True, slots=True)
class Weather:
    """What goes wrong by chance, until `Scenario.calm_ms`."""

    crash: Mapping[str, float] = field(default_factory=dict)
    """Kind of party (``master``, ``worker``, ``host``, ``store``) -> probability to die at each of its steps."""
    pause: Mapping[str, float] = field(default_factory=dict)
    """The same, for being stopped."""
    pause_ms: tuple[int, int] = (50, 2_500)
    slow: float = 0.0
    """Of each row: it takes long this time."""
    slow_ms: tuple[int, int] = (300, 3_000)
    lost: float = 0.0
    """Of each message."""
    double: float = 0.0
    late: float = 0.0
    late_ms: int = 400
    broken: float = 0.0
    """Of its stream, at each message."""
    drain: float = 0.0
    """Of some worker, at each look around (every 100 ms)."""
    partition: float = 0.0
    """Of some worker or master being cut off from everybody, likewise."""
    silence: float = 0.0
    """The same, but nobody is told that the connections are gone."""
    apart_ms: tuple[int, int] = (100, 2_000)
    outage: float = 0.0
    """Of the output place refusing everything for a while, likewise."""
    full: float = 0.0
    """Of its being full, likewise."""
    forbidden: float = 0.0
    """Of its being read-only, likewise."""
    outage_ms: tuple[int, int] = (100, 800)
    unread: float = 0.0
    """Of the input not being reached, at each row."""
    no_start: float = 0.0
    """Of a stage host that cannot set its pipeline up for want of something that may come back, at each start."""
    wrong_start: float = 0.0
    """The same, by an error of the code."""
    breakdown: float = 0.0
    """Of a stage host that gives up as a whole, at each of its batches."""
    cancel: float = 0.0
    """Of somebody giving the job up, at each look around."""
    old_file: float = 0.0
    """Of the store coming back with an old file, likewise."""
    wipe: float = 0.0
    power_cut: float = 0.0
    standby: float = 0.0
    """Of a master being started in every free slot though another one lives, likewise."""

    def times(self, factor: float) -> Weather:
        """Return the same with every probability multiplied, up to one half."""
        scaled: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Mapping):
                scaled[each.name] = {kind: min(0.5, factor * chance) for kind, chance in value.items()}
            elif isinstance(value, float):
                scaled[each.name] = min(0.5, factor * value)
        return replace(self, **scaled)

    def at_step(self, kind: str) -> tuple[Odds, ...]:
        """Return what may happen at each step of a party of this kind."""
        odds = (Odds("crash", self.crash.get(kind, 0.0)), Odds("pause", self.pause.get(kind, 0.0), self.pause_ms))
        return tuple(each for each in odds if each.probability)

    @property
    def at_message(self) -> tuple[Odds, ...]:
        """Return what may happen to each message."""
        late = (1, self.late_ms)
        odds = (Odds("lose", self.lost), Odds("double", self.double, late), Odds("delay", self.late, late), Odds("break", self.broken))
        return tuple(each for each in odds if each.probability)

    @property
    def at_row(self) -> tuple[Odds, ...]:
        """Return what may happen whenever a row is computed."""
        return (Odds("slow", self.slow, self.slow_ms),) if self.slow else ()

    @property
    def at_host(self) -> dict[str, tuple[Odds, ...]]:
        """Return what may happen to a stage host besides, by what it does."""
        odds = {
            "reads a row": (Odds("unread", self.unread),),
            "sets up": (Odds("no start", self.no_start), Odds("wrong start", self.wrong_start)),
            "begins a batch": (Odds("break down", self.breakdown),),
        }
        return {doing: each for doing, each in odds.items() if any(one.probability for one in each)}

    @property
    def at_look(self) -> tuple[Odds, ...]:
        """Return what may happen at each look around, each by itself."""
        odds = (
            Odds("drain", self.drain),
            Odds("partition", self.partition, self.apart_ms),
            Odds("silence", self.silence, self.apart_ms),
            Odds("outage", self.outage, self.outage_ms),
            Odds("full", self.full, self.outage_ms),
            Odds("forbidden", self.forbidden, self.outage_ms),
            Odds("cancel", self.cancel),
            Odds("standby", self.standby),
            Odds("restart store", self.crash.get("store", 0.0)),
            Odds("old file", self.old_file),
            Odds("wipe", self.wipe),
            Odds("power cut", self.power_cut),
        )
        return tuple(each for each in odds if each.probability)


@dataclass(frozen=True, slots=True)
class Switches:
    """Rules that live outside the core and the session; each is on unless a test shows what it is for."""

    answers_wait: bool = True
    """Rule 3: answers leave after the batch is durable."""
    effects_wait: bool = True
    """Rule 4: effects begin after the batch that decided them is durable."""
    checks_connection: bool = True
    """Rule 8: the store client never reconnects silently: it looks at run id and claim, and a sync is waited for where it was written."""
    checks_batches: bool = True
    """Rule 8: scripts apply a batch only at its very epoch and sequence number, and take their own token for success."""
    claims_output: bool = True
    """Rule 9: reigns are claimed in the output place, and looked at again before each act."""
    sweeps: bool = True
    """Rule 11: what else is staged is made unpublishable before the output is listed."""
    audits: bool = True
    """Rule 12: parts that no record names are removed before ``_SUCCESS``."""
    counts_epochs: bool = True
    """Rule 13: the epoch is part of a lease id."""
    removes_orphans: bool = True
    """Rule 14: quarantine objects without their commit are removed before their rows are granted again."""
    private_names: bool = True
    """Rule 19: record and quarantine objects have the attempt in their names."""
    spares_parts: bool = True
    """Rule 19: no part is removed before everything is published."""
    locks_directory: bool = True
    """Rule 17: one server for one append-only file, and it dies with its parent."""
    syncs_staging: bool = True
    """Section 4, step 1: staged files are synced before their commit is asked for."""
    repeats_requests: bool = True
    """A worker repeats an unanswered request until it is answered; off: it forgets it when the stream breaks (rule 10)."""
    spares_refused: bool = True
    """A worker leaves alone what it was refused to commit; off: it removes that, which a refusal must allow for (rule 1)."""
    forgets_former: bool = True
    """A worker whose rows are granted again forgets what it staged under the former lease; off: it asks to commit that (rule 13)."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that a run is made of, but for its seed."""

    name: str
    rows: tuple[int, ...] = (4, 3, 5)
    """Of each shard."""
    unsized: frozenset[int] = frozenset()
    """Shards whose size is found out only when they are opened."""
    planned_at_once: bool = True
    """Otherwise shards are planned one after the other while the job runs."""
    workers: int = 2
    slots: int = 2
    """Leases that one stage host holds at a time."""
    batch: int = 1
    """Rows that it computes together, of all the leases it holds; 1: of the first one alone, row by row."""
    sizes_late: bool = False
    """Hosts find out how many rows a shard has when they have read them all, not before the first one."""
    broken: frozenset[int] = frozenset()
    """Numbers of workers on whose nodes no pipeline can be set up."""
    masters: int = 1
    """Slots for master processes; one is started, and again when it dies, in whichever slot."""
    output: Output = "posix"
    flight_ms: int = 30
    """Longest time a request to an object store is on its way."""
    suffix: str = "parquet"
    store: Literal["embedded", "shared", "separate"] = "shared"
    """``embedded``: each master starts a server on the same directory; ``separate``: each slot has a store of its own."""
    sync: Sync = "always"
    engine: EngineConfig = ENGINE
    session: SessionPolicy = SESSION
    row_ms: tuple[int, int] = (5, 60)
    """Time to compute one row."""
    prefix: float = 0.5
    """Probability that a part is closed after a row although its lease goes on."""
    bad: frozenset[tuple[int, int]] = frozenset()
    """Rows (shard, offset) that raise."""
    flaky: frozenset[tuple[int, int]] = frozenset()
    """Rows that raise when first tried, and never again."""
    poison: frozenset[tuple[int, int]] = frozenset()
    """Rows that kill the stage host."""
    fatal: frozenset[tuple[int, int]] = frozenset()
    """Rows at which the code gives the whole job up."""
    odd: frozenset[tuple[int, int]] = frozenset()
    """Rows whose results have other columns."""
    changing: frozenset[int] = frozenset()
    """Shards that are found to be a row shorter once the master has been told their size."""
    retries: int = 0
    """Retry rounds after the end, as long as there is anything in quarantine; each with code that fails on half as many rows."""
    is_logged: bool = False
    """Every reign is written down as an event log, and lived again from it."""
    fan_out: int = 1
    """Most rows that one input row becomes; how many, its identity decides."""
    blames_rows: bool = True
    """Workers may die for reasons of their own, so a good row may end in quarantine; False: a good row in quarantine is a lost one."""
    weather: Weather = field(default_factory=Weather)
    calm_ms: int = 4_000
    """When chance stops to interfere; what died is started again, what is stopped goes on."""
    patience_ms: int = 40_000
    """How long the job may take after that before it counts as stuck."""
    restart_ms: int = 60
    """Time until a process that died is started again."""
    keeps_worker_names: bool = False
    """A worker that is started again has the name of its forerunner, as in a StatefulSet."""
    script: Callable[[Stage], None] | None = None
    """Stage directions: called once, before the first event."""
    switches: Switches = field(default_factory=Switches)

    def outputs(self, shard: int, offset: int) -> int:
        """Return how many rows an input row becomes."""
        return 1 + (7 * shard + offset) % self.fan_out

    def but(self, **changes: Any) -> Scenario:
        """Return the same with some fields replaced."""
        return replace(self, **changes)

    def without(self, **switches: bool) -> Scenario:
        """Return the same with some rules switched off: ``without(audits=False)``."""
        return replace(self, switches=replace(self.switches, **switches))

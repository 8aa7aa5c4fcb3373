"""The stage of one run: the cast, what lies between them, the supervisor that starts again what died, and the faults that chance brings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from antinfer.core import invariants
from antinfer.core.causes import Cause
from antinfer.core.engine import Engine
from antinfer.core.ids import ShardId
from antinfer.core.messages import FailureKind
from antinfer.core.plan import Piece, Shard
from antinfer.core.records import schema_of
from antinfer.testing.sim import proof
from antinfer.testing.sim.faults import Fault, Luck
from antinfer.testing.sim.host import NO_MODULE
from antinfer.testing.sim.master import Master
from antinfer.testing.sim.network import Network
from antinfer.testing.sim.output import Copies, Place, Uploads
from antinfer.testing.sim.reignlog import ReignLog
from antinfer.testing.sim.scenario import Scenario
from antinfer.testing.sim.store import File, Server, StoreClient
from antinfer.testing.sim.worker import Worker
from antinfer.testing.sim.world import Party, Run, World
from antinfer.worker import hostlink

_LOOK_MS = 100
_AT_LOOK: Final = (
    *("drain", "partition", "silence", "outage", "full", "forbidden", "cancel"),
    *("standby", "restart store", "old file", "wipe", "power cut"),
)
_REFUSALS: Final = {"outage": Cause.STORAGE, "full": Cause.DISK_FULL, "forbidden": Cause.OUTPUT_REFUSED}


class Stage:
    """Everything of one run. Stage directions (`Scenario.script`) get it whole."""

    def __init__(self, scenario: Scenario, seed: int, faults: Iterable[Fault] | None = None) -> None:
        """
        Args:
            scenario: what is played.
            seed: decides everything that chance decides.
            faults: what goes wrong; None: chance decides that too.
        """
        self.scenario = scenario
        self.world = World(seed)
        self.world.on_step = self._interfere
        self.luck = Luck(seed, faults)
        weather = scenario.weather
        self._at_look = {odds.what: (odds,) for odds in weather.at_look}
        self._at_row = weather.at_row
        self._at_host = weather.at_host
        self._at_step = {kind: weather.at_step(kind) for kind in ("master", "worker", "host", "store")}
        self.network = Network(self.world, weather, self.luck)
        self.place = self._make_place()
        self.planned_rows = tuple(None if index in scenario.unsized else rows for index, rows in enumerate(scenario.rows))
        self.shards = {
            ShardId(index): Shard(ShardId(index), (Piece("in", index, index + 1, rows),), rows, 1)
            for index, rows in enumerate(self.planned_rows)
        }
        self.computed: Counter[tuple[int, int]] = Counter()
        """How often each row was computed."""
        self.acknowledged: set[str] = set()
        """Staged names of commits that a worker was told to be accepted."""
        self.may_forget = scenario.store == "separate"
        """What a store had confirmed was lost, so commits that were not published may be done again."""
        self.given_up = ""
        """Why; empty while it goes on."""
        self.is_rightly_given_up = False
        self.troubles: Counter[int] = Counter()
        """By shard how often storage failed."""
        self.round = 0
        """The retry round that is wanted; 0: the plan itself."""
        self.calm_at = scenario.calm_ms
        """When chance stops to interfere with this life of the job."""
        self.logs: list[ReignLog] = []
        self._schema = "columns"
        self.is_fair = False
        """Nothing more goes wrong, though what went wrong before is not mended yet."""
        self.is_over = False
        self._files = [File() for _ in range(scenario.masters if scenario.store == "separate" else 1)]
        self.servers: dict[str, Server] = {}
        self.masters = {f"m{n}": Master(self, f"m{n}") for n in range(1, scenario.masters + 1)}
        self.workers = {f"w{n}": Worker(self, f"w{n}") for n in range(1, scenario.workers + 1)}

    def _make_place(self) -> Place:
        scenario = self.scenario
        private_names = scenario.switches.private_names
        match scenario.output:
            case "posix":
                return Place(self.world, scenario.suffix, private_names=private_names)
            case "uploads":
                return Uploads(self.world, scenario.suffix, flight_ms=scenario.flight_ms, private_names=private_names)
            case "copies":
                return Copies(self.world, scenario.suffix, flight_ms=scenario.flight_ms, private_names=private_names)

    def begin(self) -> None:
        """Start the cast."""
        if self.scenario.store == "shared":
            self.store.start()
        if self.scenario.script is not None:
            self.scenario.script(self)
        next(iter(self.masters.values())).start()
        for worker in self.workers.values():
            worker.start()
        self.world.after(_LOOK_MS, self._look_around)

    def begin_again(self, scenario: Scenario, round: int) -> None:
        """Let the same output have another life: `scenario` is what the job is like from now on.

        Masters start as those before end. So do workers when a round begins; those of a job that was given up are stopped, because their
        code is not what runs now.
        """
        self.world.note("user", "runs the job again: {}", f"retry round {round}" if round else "what was wrong is mended")
        is_retry = round > self.round
        self.scenario, self.round = scenario, round
        self.given_up, self.is_rightly_given_up = "", False
        self.calm_at = self.world.now + scenario.calm_ms // 2
        self._at_look = {odds.what: (odds,) for odds in scenario.weather.at_look}
        self._at_host = scenario.weather.at_host
        engines = [master.engine for master in self.masters.values() if master.engine is not None]
        frozen = max(engines, key=lambda engine: engine.epoch).meta.schema if engines else ""
        # Whatever the first commit froze is what the code returns from now on.
        self._schema = schema_of(proof.published(self.place, proof.read_all(self.place))) or frozen or self._schema
        self.is_fair = False
        self.network.stir_up()
        for worker in self.workers.values():
            if worker.is_alive and not is_retry:
                worker.crash()
            self._start_worker(worker)

    @property
    def is_sealed(self) -> bool:
        """The output is finished, with the last round that is wanted."""
        sealed = self.place.sealed_round
        return sealed is not None and sealed >= self.round

    @property
    def job(self) -> str:
        """The id that new workers insist on."""
        job = self.scenario.engine.job
        return f"{job}-r{self.round}" if self.round else job

    # -- the cast ----------------------------------------------------------------------------------------------------------------
    @property
    def store(self) -> Server:
        """The store that all masters share."""
        if "store" not in self.servers:
            self.servers["store"] = Server(self.world, "store", self._files[0], self.scenario.sync)
        return self.servers["store"]

    def party(self, name: str) -> Party:
        """Return a master (``m1``), worker (``w1``), stage host (``w1.host``) or store (``store``) by name."""
        if name.endswith(".host"):
            return self.workers[name.removesuffix(".host")].host
        if name in self.servers or name == "store":
            return self.store if name == "store" else self.servers[name]
        return self.masters[name] if name in self.masters else self.workers[name]

    def address(self, number: int) -> Master | None:
        """Return the master at the `number`-th address that workers try."""
        masters = list(self.masters.values())
        return masters[number % len(masters)]

    def open_store(self, master: Master) -> Run[StoreClient]:
        """Give a starting master its store client; waits for the lock on an embedded server's directory."""
        switches = self.scenario.switches
        if self.scenario.store == "shared":
            return StoreClient(master, self.store, own=False, switches=switches)
        number = list(self.masters).index(master.name) if self.scenario.store == "separate" else 0
        file = self._files[number]
        if switches.locks_directory:
            while file.locked_by is not None and file.locked_by.is_alive:
                yield 20
        name = f"{master.name}.store"
        server = Server(self.world, name, file, "always")
        self.servers[name] = file.locked_by = server
        server.start()
        yield "started its store"
        return StoreClient(master, server, own=True, switches=switches)

    def at(self, ms: int, then: Callable[[], None]) -> None:
        """For stage directions: call `then` at this time."""
        self.world.after(ms, then)

    def every(self, ms: int, then: Callable[[], None]) -> None:
        """For stage directions: call `then` again and again, until the output is sealed."""

        def again() -> None:
            if not self.is_sealed and not self.is_over:
                then()
                self.world.after(ms, again)

        self.world.after(ms, again)

    def pause(self, name: str, ms: int) -> None:
        """For stage directions: stop a party for a while, if it is awake."""
        party = self.party(name)
        if party.is_awake:
            party.pause()
            self.world.after(ms, party.resume)

    def crash(self, *names: str) -> None:
        """For stage directions: let parties die in the same instant."""
        for party in map(self.party, names):
            if party.is_alive:
                party.crash()

    # -- what is told ------------------------------------------------------------------------------------------------------------
    def on_master_gone(self, master: Master) -> None:
        server = self.servers.get(f"{master.name}.store")
        if server is not None and server.is_alive and self.scenario.switches.locks_directory:
            server.crash()

    def on_worker_gone(self, worker: Worker) -> None:
        """Start it again."""
        self.world.after(self.scenario.restart_ms, lambda: self._start_worker(worker))

    def _start_worker(self, worker: Worker) -> None:
        if not worker.is_alive and not self.is_over and not self.is_sealed:
            worker.start()

    def on_acknowledged(self, staged: str) -> None:
        self.acknowledged.add(staged)

    def on_given_up(self, master: Master, reason: str, *, is_right: bool) -> None:
        self.world.note(master.name, "gives the job up: {}", reason)
        if not self.given_up:
            self.given_up, self.is_rightly_given_up = reason, is_right

    def check_engine(self, engine: Engine) -> None:
        """Raise InvariantViolation unless the ledger is a partition."""
        invariants.check(engine)

    # -- chance ------------------------------------------------------------------------------------------------------------------
    @property
    def is_calm(self) -> bool:
        return self.is_fair or self.world.now >= self.calm_at

    def _interfere(self, party: Party, step: str) -> None:
        """A step was done: perhaps this is where it dies or stops."""
        if self.is_calm:
            return
        fault = self.luck.meet(party.name, step, self._at_step[party.kind])
        if fault is None:
            return
        if fault.what == "crash":
            party.crash()
        else:
            party.pause()
            self.world.after(fault.ms, party.resume)

    def row_ms(self, host: str) -> int:
        """Return how long the next row takes."""
        fault = None if self.is_calm else self.luck.meet(host, "computes a row", self._at_row)
        return self.world.rng.randint(*self.scenario.row_ms) if fault is None else fault.ms

    def start_failure(self, worker: str) -> hostlink.Failed | None:
        """Return what a starting host of this worker has to say when its pipeline cannot be set up."""
        number = int(worker.removeprefix("w"))
        fault = self._strikes_host(f"{worker}.host", "sets up")
        if number in self.scenario.broken or (fault is not None and fault.what == "wrong start"):
            return hostlink.Failed(None, FailureKind.FATAL, NO_MODULE, "Traceback ...")
        if fault is not None:
            return hostlink.Failed(None, FailureKind.STORAGE, "the weights cannot be reached")
        return None

    def breaks(self, host: str) -> bool:
        """Tell whether a host gives up as a whole now."""
        return self._strikes_host(host, "begins a batch") is not None

    def cannot_read(self, host: str) -> bool:
        """Tell whether the next row cannot be read now."""
        return self._strikes_host(host, "reads a row") is not None

    def _strikes_host(self, host: str, doing: str) -> Fault | None:
        return None if self.is_calm else self.luck.meet(host, doing, self._at_host.get(doing, ()))

    def schema(self, rows: Iterable[tuple[int, int]]) -> str:
        """Return the columns of a part with the results of these rows."""
        return "other columns" if not self.scenario.odd.isdisjoint(rows) else self._schema

    def size(self, shard: int) -> int:
        """Return how many rows a host finds in a shard."""
        rows = self.scenario.rows[shard]
        if shard in self.scenario.changing and any(self._knows_size(master, shard) for master in self.masters.values()):
            return rows - 1
        return rows

    @staticmethod
    def _knows_size(master: Master, shard: int) -> bool:
        opened = None if master.engine is None else master.engine.ledger.open.get(ShardId(shard))
        return opened is not None and opened.rows is not None

    def _look_around(self) -> None:
        if self.is_over:
            return
        self.world.after(_LOOK_MS, self._look_around)
        if self.world.now >= self.calm_at:
            self._calm_down()
        elif not self.is_fair:
            self._roll_dice()
        if not self.is_sealed and not any(master.is_alive for master in self.masters.values()):
            self.world.rng.choice(list(self.masters.values())).start()

    def _roll_dice(self) -> None:
        for what in _AT_LOOK:
            fault = self.luck.meet("weather", what, self._at_look.get(what, ()))
            if fault is not None:
                self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        match fault.what:
            case "drain":
                worker = list(self.workers.values())[fault.victim % len(self.workers)]
                if worker.is_alive:
                    self._drain(worker, fault)
            case "partition" | "silence":
                parties = [*self.workers.values(), *self.masters.values()]
                party = parties[fault.victim % len(parties)]
                self.network.cut_off(party, fault.ms, silently=fault.what == "silence")
            case "outage" | "full" | "forbidden":
                self.world.note("place", "refuses everything for {} ms: {}", fault.ms, fault.what)
                self.place.refuse(self.world.now + fault.ms, _REFUSALS[fault.what])
            case "cancel":
                for master in self.masters.values():
                    if master.is_awake:
                        master.cancel()
            case "standby":
                for master in self.masters.values():
                    if not master.is_alive and not self.is_sealed:
                        master.start()
            case "restart store":
                for server in self._live_servers():
                    server.restart()
            case "old file" | "wipe":
                self.lose_store(wipe=fault.what == "wipe")
            case "power cut":
                self.cut_power()
            case _:
                raise ValueError(f"no fault is called {fault.what!r}")

    def _drain(self, worker: Worker, fault: Fault) -> None:
        """By a signal to the worker, or, every third time, by a word to its master."""
        masters = [master for master in self.masters.values() if master.is_awake]
        if fault.victim % 3 or not masters or self.scenario.batch == 1:
            worker.drain()
        else:
            masters[0].drain(worker)

    def _calm_down(self) -> None:
        self.network.calm_down()
        self.place.refuses_until = 0
        for party in (*self.servers.values(), *self.masters.values(), *self.workers.values()):
            party.resume()

    def _live_servers(self) -> list[Server]:
        return [server for server in self.servers.values() if server.is_alive]

    def lose_store(self, *, wipe: bool) -> None:
        """The store comes back with an old file, or with nothing."""
        for server in self._live_servers():
            self.may_forget = True
            self.world.note(server.name, "is wiped" if wipe else "comes back with an old file")
            if wipe:
                server.wipe()
            else:
                server.restart_from_old_file()

    def cut_power(self) -> None:
        """The machine on which everything runs loses power, and comes back."""
        self.world.note("power", "is cut")
        for party in (*self.workers.values(), *self.masters.values()):
            if party.is_alive:
                party.crash()
        self.place.cut_power()
        for server in list(self.servers.values()):
            if server.is_alive:
                server.crash()
            if server is self.servers.get("store"):
                server.start()

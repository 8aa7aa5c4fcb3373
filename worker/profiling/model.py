"""What was measured of each stage alone, and what follows for the pipeline as a whole. Pure: numbers in, numbers out.

The pipeline makes R input rows a second at most, where R is the largest rate at which no resource is asked for more than there is of it:

- each stage by itself: R times its rows for each input row, over the rows a second of its best measurement, is at most 1;
- the cores: R times the sum of all stages' CPU seconds for each input row is at most their number;
- a GPU that several stages share: their times on it add up, as if each needed all of it while it works.

Of the rows of a hybrid stage a share goes raw to the predictor behind it; the share is the one that gives the highest rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

RunsAs = Literal["threads", "processes"]

CORES: Final = "cores"
"""The resource that all stages share."""
_STEPS: Final = 100
"""Shares of a hybrid stage are tried in steps of one hundredth."""
_NEAR: Final = 0.03
"""Rates that differ by less are equal: the machine is never quite quiet."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A stage alone, with `degree` copies."""

    runs_as: RunsAs
    degree: int
    batch_rows: int
    """Rows of a full batch; 0 where there are no batches to choose."""
    rows_per_second: float
    """Of all copies together, in rows of this stage."""
    cpu_seconds_per_row: float
    """Of all processes that take part, hand-over included."""
    gil_share: float | None = None
    """Share of the time in which the GIL was held, about; None: not measured."""


@dataclass(frozen=True, slots=True)
class StageProfile:
    """All that is known of one stage."""

    name: str
    kind: str
    """Kind of the stage in the job file; ``reader``, ``accumulators`` or ``writer`` for what is at the ends of it."""
    rows: int
    """Sampled rows that reached it."""
    rows_per_input_row: float
    row_bytes_in: float
    row_bytes_out: float
    """Bytes that come out for each row that goes in."""
    measurements: tuple[Measurement, ...] = ()
    """Empty when no row reached it."""
    fused: tuple[Measurement, ...] = ()
    """For a predictor behind a hybrid stage: rows of that stage as they are, through its GPU implementation and the model."""
    hybrid: str = ""
    """Name of that hybrid stage."""
    gpu_share: float | None = None
    """Share of rows that the job lets it take so; None: as is best."""
    load_seconds: float | None = None
    """From the start of a process until the user code in it is ready; None: not run in processes."""
    num_gpus: float = 0.0
    devices: tuple[str, ...] = ()
    """GPUs that its copies use in a run."""
    within: str = ""
    """The stage whose threads do this one's work too."""
    concurrency: int | None = None
    """Most copies that the job allows; None: it leaves that to us."""

    @property
    def best(self) -> Measurement | None:
        return best(self.measurements)


@dataclass(frozen=True, slots=True)
class Profile:
    """One job on one machine."""

    job: str
    fingerprint: str
    """Of the job, so that only the same one is compared with it."""
    cores: int
    rows: int
    """Input rows in the sample."""
    bad_rows: int
    """Of these, rows that a stage gave up on."""
    stages: tuple[StageProfile, ...]
    others_share: float = 0.0
    """Share of the cores that processes of others took while this was measured."""

    def stage(self, name: str) -> StageProfile | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        stages = tuple(_stage(stage) for stage in data["stages"])
        return cls(
            **{**{name: data[name] for name in ("job", "fingerprint", "cores", "rows", "bad_rows", "others_share")}, "stages": stages}
        )


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One stage as part of the whole, in input rows."""

    name: str
    ceiling: float | None
    """Input rows a second that it could do if the others took nothing from it; None when it has nothing to do."""
    load: float
    """Share of that which the expected rate takes."""
    cores: float
    """Cores that it keeps busy at the expected rate."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the pipeline as a whole is expected to do."""

    rate: float
    """Input rows a second."""
    limit: str
    """What there is too little of: `CORES`, a GPU, or the name of a stage."""
    bottleneck: str
    """The stage that takes most of it."""
    next_rate: float
    """The rate with twice as much of that."""
    cores_used: float
    stages: tuple[StageForecast, ...]
    fused_shares: dict[str, float] = field(default_factory=dict)
    """By predictor behind a hybrid stage: the share of rows that it takes raw."""


def best(measurements: Iterable[Measurement]) -> Measurement | None:
    """Return the fastest; of those about as fast the one with the fewest copies."""
    found = list(measurements)
    if not found:
        return None
    top = max(each.rows_per_second for each in found)
    return min(
        (each for each in found if each.rows_per_second >= (1 - _NEAR) * top),
        key=lambda each: (each.degree, each.cpu_seconds_per_row),
    )


def scaling(measurement: Measurement, measurements: Iterable[Measurement]) -> float | None:
    """Return how many times as fast as a single copy of the same kind `measurement` is; None when that was not measured."""
    kind = (measurement.runs_as, measurement.batch_rows)
    single = next((each for each in measurements if each.degree == 1 and (each.runs_as, each.batch_rows) == kind), None)
    return measurement.rows_per_second / single.rows_per_second if single is not None and single.rows_per_second else None


def forecast(profile: Profile) -> Forecast:
    """Return the expected rate of the pipeline. `profile` has at least one stage that was measured."""
    shares = _best_shares(profile)
    needs = _Needs.of(profile, shares)
    limit = max(needs.loads, key=lambda name: needs.loads[name])
    rate = 1 / needs.loads[limit]
    eased = {name: load / 2 if name == limit else load for name, load in needs.loads.items()}
    return Forecast(
        rate=rate,
        limit=limit,
        bottleneck=needs.greediest(limit),
        next_rate=1 / max(eased.values()),
        cores_used=rate * sum(needs.cpu.values()),
        stages=tuple(
            StageForecast(name, 1 / seconds if seconds else None, rate * seconds, rate * needs.cpu[name])
            for name, seconds in needs.seconds.items()
        ),
        fused_shares=shares,
    )


@dataclass(frozen=True, slots=True)
class _Needs:
    """What one input row needs, in seconds."""

    seconds: dict[str, float]
    """By stage: of all of its copies together."""
    cpu: dict[str, float]
    """By stage: of a core."""
    loads: dict[str, float]
    """By resource: of all that there is of it."""
    users: dict[str, list[str]]
    """By resource: the stages that need it."""

    @classmethod
    def of(cls, profile: Profile, shares: Mapping[str, float]) -> _Needs:
        raw = {stage.hybrid: shares[stage.name] for stage in profile.stages if stage.name in shares}
        seconds: dict[str, float] = {}
        cpu: dict[str, float] = {}
        loads: dict[str, float] = {}
        users: dict[str, list[str]] = {}
        shared = _shared_devices(profile)
        for stage in profile.stages:
            parts = [(1 - raw.get(stage.name, 0.0) - shares.get(stage.name, 0.0), stage.best)]
            parts.append((shares.get(stage.name, 0.0), best(stage.fused)))
            used = [(share, found) for share, found in parts if found is not None and share > 0]
            if stage.best is None:
                continue
            seconds[stage.name] = stage.rows_per_input_row * sum(share / found.rows_per_second for share, found in used)
            cpu[stage.name] = stage.rows_per_input_row * sum(share * found.cpu_seconds_per_row for share, found in used)
            for resource in (stage.within or stage.name, *(f"GPU {device}" for device in stage.devices if device in shared)):
                loads[resource] = loads.get(resource, 0.0) + seconds[stage.name]
                users.setdefault(resource, []).append(stage.name)
        loads[CORES], users[CORES] = sum(cpu.values()) / profile.cores, list(cpu)
        return cls(seconds, cpu, loads, users)

    def greediest(self, resource: str) -> str:
        takes = self.cpu if resource == CORES else self.seconds
        return max(self.users[resource], key=lambda name: takes[name])


def _shared_devices(profile: Profile) -> set[str]:
    users: dict[str, int] = {}
    for stage in profile.stages:
        for device in stage.devices:
            users[device] = users.get(device, 0) + 1
    return {device for device, count in users.items() if count > 1}


def _best_shares(profile: Profile) -> dict[str, float]:
    """Return for each predictor behind a hybrid stage the share of raw rows with the highest rate; of equal ones the smallest."""
    takers = [stage for stage in profile.stages if stage.fused and stage.measurements]
    shares = {stage.name: 1.0 if stage.gpu_share == 1 else 0.0 for stage in takers}
    # One after the other, twice: what one of them leaves of the cores changes what is best for another.
    for stage in [*takers, *takers]:
        if stage.gpu_share in (0, 1):
            continue
        most = 1.0 if stage.gpu_share is None else stage.gpu_share
        rates = []
        for step in range(_STEPS + 1):
            share = most * step / _STEPS
            needs = _Needs.of(profile, {**shares, stage.name: share})
            rates.append((1 / max(needs.loads.values()), -share))
        shares[stage.name] = -max(rates)[1]
    return shares


def _stage(data: Mapping[str, Any]) -> StageProfile:
    lists = {name: tuple(Measurement(**each) for each in data[name]) for name in ("measurements", "fused")}
    return StageProfile(**{**data, **lists, "devices": tuple(data["devices"])})

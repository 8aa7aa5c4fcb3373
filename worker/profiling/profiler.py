"""The profiler: rehearses the pipeline on the sample, then measures what reads, each stage, and what writes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from antinfer.launchers.gpus import visible_gpus
from antinfer.metrics import AccumulatorSet
from antinfer.spec import devices, usercode
from antinfer.spec.canonical import job_fingerprint
from antinfer.spec.devices import Gpus, GpuWish, place
from antinfer.spec.schema import JobSpec, StageSpec
from antinfer.storage.jobs import part_options
from antinfer.storage.place import open_place
from antinfer.worker.host.machine import usable_cpus
from antinfer.worker.host.parts import OutputPlan
from antinfer.worker.host.runs import Chunk
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import Assembled, BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import without_bad
from antinfer.worker.profiling import ends
from antinfer.worker.profiling.bench import Bench, Tally
from antinfer.worker.profiling.crew import lone, working
from antinfer.worker.profiling.cutting import cut
from antinfer.worker.profiling.gauges import OthersGauge
from antinfer.worker.profiling.model import Measurement, Profile, RunsAs, StageProfile, best
from antinfer.worker.profiling.rehearsal import Given, Rehearsed, rehearse
from antinfer.worker.profiling.sample import Sample, read_sample
from antinfer.worker.schemas import SchemaGate
from antinfer.worker.tuning.batchsize import FIRST_ROWS, KNEE

_WORTH = 0.05
"""Twice as many copies must bring so much, or no more of them are tried."""
_SIZE_STEP = 4
"""Batch sizes that are tried are so many times as large as the one before."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    rows: int | None
    """Rows of the sample; None: as many as are enough."""
    seconds: float
    """Of each measurement."""


def profile(spec: JobSpec, options: Options, folder: Path, say: Say) -> Profile:
    """Measure each stage of `spec` alone. Nothing is written but to `folder`, and nothing stays there.

    Args:
        spec: The job.
        options: How much of it, and for how long.
        folder: For parts that are written to see how fast that is.
        say: Told what is being done, a line each.

    Raises:
        UserError: GPUs that are asked for are not there, or user code is at fault.
        DataError: The input cannot be read, or has no rows.
    """
    return _Profiler(spec, options, folder, say).run()


class _Profiler:
    def __init__(self, spec: JobSpec, options: Options, folder: Path, say: Say) -> None:
        self._spec = spec
        self._options = options
        self._folder = folder
        self._say = say
        self._cpus = max(1, round(usable_cpus()))
        self._gpus = visible_gpus()
        self._nodes = graph.build(spec, self._cpus)
        self._devices = self._places()

    def run(self) -> Profile:
        spec, others = self._spec, OthersGauge()
        accumulators = AccumulatorSet.from_config(spec.accumulators, lambda name: usercode.resolve(name, spec.base_dir))
        self._say("reading the first rows")
        sample = read_sample(spec, self._options.rows)
        plan = self._plan(sample, accumulators)
        self._say(f"rehearsing with {sample.batch.num_rows:,} rows")
        rehearsed = rehearse(self._nodes, sample.batch, all_rows=self._options.rows is not None, cpus=self._cpus, gpus=self._gpus)
        results = _results(plan, sample, rehearsed)
        stages = [self._reader(sample, rehearsed)]
        stages += [self._stage(at, node, rehearsed) for at, node in enumerate(self._nodes) if isinstance(node, Call)]
        if results:
            stages += self._outlet(accumulators, results, rehearsed)
        return Profile(
            job=spec.name,
            fingerprint=job_fingerprint(spec)["all"],
            cores=self._cpus,
            rows=rehearsed.rows,
            bad_rows=rehearsed.bad_rows,
            stages=tuple(stages),
            others_share=others.share(),
        )

    # -- the pipeline's own stages -----------------------------------------------------------------------------------------------------
    def _stage(self, at: int, call: Call, rehearsed: Rehearsed) -> StageProfile:
        given = rehearsed.given[at]
        spec = call.spec
        assert spec is not None
        hybrid = None if call.hybrid is None else self._nodes[call.hybrid]
        found = StageProfile(
            name=call.name,
            kind=call.stage.kind,
            rows=given.rows,
            rows_per_input_row=given.rows / rehearsed.rows,
            row_bytes_in=given.size_bytes / max(1, given.rows),
            row_bytes_out=given.bytes_out / max(1, given.rows),
            hybrid="" if hybrid is None else hybrid.name,
            gpu_share=call.gpu_share,
            num_gpus=spec.num_gpus,
            devices=tuple(sorted({device for devices in self._devices.get(at, []) for device in devices})),
            concurrency=_most(spec),
        )
        if not given.pieces:
            self._say(f"{call.name}: no row reached it")
            return found
        measured: list[Measurement] = []
        load_seconds = None
        for runs_as in _ways(spec):
            made, loaded = self._copies(at, call, runs_as, given)
            measured += made
            load_seconds = loaded if loaded is not None else load_seconds
        fused: list[Measurement] = []
        if hybrid is not None and call.hybrid is not None and call.gpu_share != 0:
            fused, _ = self._copies(at, call, "processes", rehearsed.given[call.hybrid], fused=True)
        return replace(found, measurements=tuple(measured), fused=tuple(fused), load_seconds=load_seconds)

    def _copies(self, at: int, call: Call, runs_as: RunsAs, given: Given, *, fused: bool = False) -> tuple[list[Measurement], float | None]:
        """Measure with 1, 2, 4 ... copies for as long as more of them help; return that, and how long the first one took to load."""
        made: list[Measurement] = []
        load_seconds: float | None = None
        for degree in self._degrees(at, call):
            bench = Bench(degree)
            one = lone(call, runs_as, degree)
            with working([self._without_auto(one)], bench, self._cpus, self._gpus) as loaded:
                load_seconds = loaded if load_seconds is None else load_seconds
                sizes = self._sizes(call, given) if degree == 1 else iter([_rows(made, call)])
                what = f"{call.name}{' (on_gpu)' if fused else ''}: {degree} {_noun(runs_as, degree)}"
                for rows in sizes:
                    self._say(f"{what}, batches of {rows}" if call.stage.kind == "predict" else what)
                    made.append(self._measure(bench, call, runs_as, given, degree, rows, fused))
                    if bench.ran_short or _is_past_the_knee(made):
                        break
            if degree > 1 and made[-1].rows_per_second < (1 + _WORTH) * _fastest(made[:-1]):
                break
        return made, load_seconds

    def _measure(self, bench: Bench, call: Call, runs_as: RunsAs, given: Given, degree: int, rows: int, fused: bool) -> Measurement:
        limits = replace(call.limits, rows=rows)
        batches = cut(given.pieces, limits, call.buckets if not fused else None, call.stage.where)
        if fused:
            batches = [Assembled(each.parts, fused=True) for each in batches]
        probes = runs_as == "threads" and degree == 1
        tally = bench.measure(batches, self._options.seconds, probes_gil=probes)
        return _measurement(tally, runs_as, degree, max(each.rows for each in batches))

    def _sizes(self, call: Call, given: Given) -> Iterator[int]:
        """Return the batch sizes to try with one copy: what the job says, or for a model that it says nothing of, several."""
        if call.limits.max_bytes is None:
            yield call.limits.rows
            return
        # So many rows that a batch fits into its measurement twice.
        patience = max(1, int(0.5 * self._options.seconds * given.rows / given.seconds)) if given.seconds else call.limits.rows
        if call.stage.kind != "predict":
            yield min(call.limits.rows, patience)
            return
        rows = FIRST_ROWS
        row_bytes = given.size_bytes / max(1, given.rows)
        while rows == FIRST_ROWS or (rows <= min(call.limits.rows, _SIZE_STEP * patience) and rows * row_bytes <= call.limits.max_bytes):
            yield rows
            rows *= _SIZE_STEP

    def _degrees(self, at: int, call: Call) -> list[int]:
        spec = call.spec
        assert spec is not None
        most = _most(spec)
        if most is None:
            # As far as a run would go.
            grown = max(call.degree, int(self._cpus / spec.num_cpus)) if self._spec.tuning == "auto" else call.degree
            most = max(1, len(self._devices[at])) if spec.num_gpus else grown
        if spec.num_gpus:
            fitting = place([GpuWish(call.name, spec.num_gpus, "auto")], Gpus(self._gpus))[0]
            most = min(most, len(fitting))
        return _steps(most)

    @staticmethod
    def _without_auto(call: Call) -> Call:
        # Sizes are set here, so the predictors shall not search for one.
        return replace(call, limits=BatchLimits(call.limits.rows, whole=call.limits.whole))

    def _places(self) -> dict[int, list[tuple[str, ...]]]:
        """Return the devices of each predictor of a run, by node. Raises UserError when they are not there."""
        calls = {at: node for at, node in enumerate(self._nodes) if isinstance(node, Call) and node.spec is not None and node.in_processes}
        wishes = [_wish(node) for node in calls.values()]
        return dict(zip(calls, place(wishes, Gpus(self._gpus)), strict=True))

    # -- the ends ------------------------------------------------------------------------------------------------------------------------
    def _reader(self, sample: Sample, rehearsed: Rehearsed) -> StageProfile:
        row_bytes = sample.batch.nbytes / sample.batch.num_rows
        made = []
        for degree in _steps(devices.ends(self._spec.pipeline, self._gpus)):
            self._say(f"reader: {degree} {_noun('threads', degree)}")
            tally = ends.read(sample.source, sample.shards, row_bytes, degree, self._options.seconds)
            made.append(_measurement(tally, "threads", degree, 0))
        return StageProfile("reader", "reader", rehearsed.rows, 1.0, 0.0, row_bytes, tuple(made))

    def _outlet(self, accumulators: AccumulatorSet, results: Sequence[pa.RecordBatch], rehearsed: Rehearsed) -> list[StageProfile]:
        rows = sum(batch.num_rows for batch in results)
        share, row_bytes = rows / rehearsed.rows, sum(batch.nbytes for batch in results) / rows
        stages = []
        if len(accumulators):
            self._say("accumulators")
            tally = ends.accumulate(accumulators, results, self._options.seconds)
            made = (_measurement(tally, "threads", 1, 0),)
            stages.append(StageProfile("accumulators", "accumulators", rows, share, row_bytes, 0.0, made, within="writer"))
        written, made_by_writers = 0.0, []
        for degree in _steps(devices.ends(self._spec.pipeline, self._gpus)):
            self._say(f"writer: {degree} {_noun('threads', degree)}")
            tally = ends.write(self._spec, results, self._folder, degree, self._options.seconds)
            made_by_writers.append(_measurement(tally, "threads", degree, 0))
            written = tally.bytes_out / max(1, tally.rows)
        stages.append(StageProfile("writer", "writer", rows, share, row_bytes, written, tuple(made_by_writers)))
        return stages

    def _plan(self, sample: Sample, accumulators: AccumulatorSet) -> OutputPlan:
        spec = self._spec
        return OutputPlan(
            place=open_place(str(self._folder)),
            sink=spec.sink.type,
            options=part_options(spec),
            carryover=tuple(sample.batch.schema.names) if spec.carryover == "*" else spec.carryover,
            keep_columns=(),
            row_ids=spec.sink.row_ids,
            accumulators=accumulators,
            gate=SchemaGate("the output", widens=False),
            worker="",
            code="",
        )


def _results(plan: OutputPlan, sample: Sample, rehearsed: Rehearsed) -> list[pa.RecordBatch]:
    """Return the output rows of the rehearsal in batches of one schema."""
    chunk = Chunk(0, rehearsed.rows, 0, plan.bypass(sample.batch))
    joined = [plan.join(0, without_bad(piece), chunk) for piece in rehearsed.results]
    return [plan.gate.fit(batch) for batch in joined if batch is not None]


def _measurement(tally: Tally, runs_as: RunsAs, degree: int, batch_rows: int) -> Measurement:
    return Measurement(runs_as, degree, batch_rows, tally.rows_per_second, tally.cpu_seconds / max(1, tally.rows), tally.gil_share)


def _ways(spec: StageSpec) -> tuple[RunsAs, ...]:
    if spec.kind == "predict" or spec.workers_as == "processes":
        return ("processes",)
    return ("threads",) if spec.workers_as == "threads" else ("threads", "processes")


def _most(spec: StageSpec) -> int | None:
    if spec.concurrency == "auto":
        return None
    return spec.concurrency if isinstance(spec.concurrency, int) else spec.concurrency[1]


def _wish(call: Call) -> GpuWish:
    assert call.spec is not None
    return GpuWish(call.name, call.spec.num_gpus, call.spec.concurrency if call.spec.num_gpus else call.degree)


def _rows(made: Sequence[Measurement], call: Call) -> int:
    fastest = best(made)
    return call.limits.rows if fastest is None else fastest.batch_rows


def _fastest(made: Sequence[Measurement]) -> float:
    return max(each.rows_per_second for each in made)


def _is_past_the_knee(made: Sequence[Measurement]) -> bool:
    return len(made) > 1 and made[-1].degree == 1 and made[-1].rows_per_second < (1 + KNEE) * made[-2].rows_per_second


def _steps(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, and `most` at the end."""
    return [degree for degree in (1 << power for power in range(most.bit_length())) if degree < most] + [most]


def _noun(runs_as: RunsAs, degree: int) -> str:
    return runs_as if degree > 1 else runs_as.removesuffix("s").replace("processe", "process")

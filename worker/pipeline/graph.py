"""The pipeline as nodes in topological order: what runs each stage, how many of it, how large its batches are, and who comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from antinfer.spec.normal import all_stages
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.buckets import Buckets
from antinfer.worker.pipeline.stagecalls import StageCall

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec, StageSpec

_AUTO_ROWS = 4096
_AUTO_BYTES = 32 << 20
_AUTO_MODEL_BYTES = 64 << 20
"""The same for a predictor, whose batch size is searched for: 256 images as a GPU likes them are 38 MB."""
_AUTO_COPIES = 4
"""Copies that a map stage begins with where more would be in somebody's way, or of no use."""
_FRAME_ROWS = 1024
"""Rows of a batch of a reproducible job, for stages whose user code sees single rows anyway."""
_FRAMES_TO_SORT = 8
"""So many batches of rows are sorted into buckets at once in a reproducible job."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node that calls user code."""

    stage: StageCall
    limits: BatchLimits
    degree: int
    in_processes: bool
    spec: StageSpec | None = None
    """What the job file says about it."""
    buckets: Buckets | None = None
    """How the rows in front of it are sorted; None: not at all."""
    hybrid: int | None = None
    """For a predictor: index of the hybrid stage right before it, whose rows it may take as they are (`Assembled.fused`)."""
    on_gpu: StageCall | None = None
    """For a predictor with `hybrid`: what its process calls before the model on such rows."""
    gpu_share: float | None = None
    """With `hybrid`: most of the rows that may be taken so; None: as many as there are when nothing else is."""
    processes: int = 1
    """How many it works with at first once it is in processes and memory has room for them; `degree` of them are started blindly."""

    @property
    def name(self) -> str:
        return self.stage.name


@dataclass(frozen=True, slots=True)
class Close:
    """A node that closes the innermost open group."""

    name: str
    into: str
    """Column that receives the children; empty: they become the rows."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A node that sends each piece into all of its branches."""

    name: str
    branches: tuple[int, ...]
    """First node of each."""
    join: int
    """Node where they meet."""
    when: str = ""
    """Boolean column that says which rows go into the branches; empty: all."""


@dataclass(frozen=True, slots=True)
class Join:
    """A node that puts what the branches of a `Fork` made of a piece together again."""

    name: str
    branches: tuple[str, ...]
    """Their names, for messages."""
    when: str = ""
    adds: tuple[str, ...] | None = None
    """With `when`: columns that are added; None: to be learnt from the first row that goes through."""
    drops_only: bool = False
    """With `when`: the branch drops rows and changes none."""


@dataclass(frozen=True, slots=True)
class Sort:
    """A node that sorts the rows of a piece into buckets."""

    name: str
    buckets: Buckets


@dataclass(frozen=True, slots=True)
class Unsort:
    """A node that puts sorted rows back into their order."""

    name: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A node that cuts and joins pieces at fixed positions of their scope, as reproducible batches need it."""

    name: str
    rows: int


Node = Call | Close | Fork | Join | Sort | Unsort | Frame


@dataclass(frozen=True, slots=True)
class Routes:
    """Who comes before and after whom, by index; the index behind the last node stands for the end."""

    after: tuple[int, ...]
    """Where the results of each node go; those of a `Fork` go to its branches, or here when there is nothing to do in them."""
    ancestors: tuple[frozenset[int], ...]
    """All nodes from which rows can come to each."""
    outlets: tuple[tuple[int, ...], ...]
    """The calls whose queues the results of each node go to."""
    feeders: tuple[tuple[int, ...], ...]
    """The calls whose results go to the queue of each."""
    joins: tuple[tuple[int, ...], ...]
    """The joins that the results of each node meet others in before they come to another call."""


def routes(nodes: Sequence[Node]) -> Routes:
    """Return the routes between `nodes`."""
    end = len(nodes)
    after = list(range(1, end + 1))
    for node in nodes:
        if isinstance(node, Fork):
            for last in (*(entry - 1 for entry in node.branches[1:]), node.join - 1):
                after[last] = node.join
    into = [node.branches if isinstance(node, Fork) else (after[at],) for at, node in enumerate(nodes)]
    ancestors: list[set[int]] = [set() for _ in range(end + 1)]
    for at in range(end):
        for following in into[at]:
            ancestors[following] |= {at, *ancestors[at]}
    outlets: list[tuple[int, ...]] = [()] * (end + 1)
    for at in reversed(range(end)):
        found = [(one,) if one < end and isinstance(nodes[one], Call) else outlets[one] for one in into[at]]
        outlets[at] = tuple(dict.fromkeys(call for calls in found for call in calls))
    feeders = tuple(tuple(at for at in range(end) if isinstance(nodes[at], Call) and one in outlets[at]) for one in range(end))
    joins: list[tuple[int, ...]] = [()] * (end + 1)
    for at in reversed(range(end)):
        following = after[at]
        if following < end and not isinstance(nodes[following], Call):
            joins[at] = (*((following,) if isinstance(nodes[following], Join) else ()), *joins[following])
    for at, node in enumerate(nodes):
        if isinstance(node, Fork):
            after[at] = after[node.join]
    return Routes(tuple(after), tuple(frozenset(each) for each in ancestors[:end]), tuple(outlets[:end]), feeders, tuple(joins[:end]))


def build(spec: JobSpec, cpus: int) -> list[Node]:
    """Return the nodes of `spec` in order. Groups that no gather closes are closed at the end."""
    builder = _Builder(spec, cpus)
    open_groups = builder.add_chain(spec.pipeline)
    return builder.nodes + [Close(f"flatten-{n}", "") for n in range(open_groups)]


def isolated(nodes: Sequence[Node]) -> list[Node]:
    """Return `nodes` with every stage in processes that the user leaves open: there, a row that kills or hangs can be found.

    They stay as few as they begin with: what killed may have been too little memory.
    """
    return [
        replace(node, in_processes=True, processes=node.degree) if isinstance(node, Call) and may_isolate(node) else node for node in nodes
    ]


def may_isolate(call: Call) -> bool:
    return call.in_processes or (call.spec is not None and call.spec.workers_as == "auto")


def processes(nodes: list[Node]) -> int:
    """Count the processes that `nodes` need."""
    return sum(node.degree for node in nodes if isinstance(node, Call) and node.in_processes)


def root_frames(nodes: Sequence[Node]) -> list[int]:
    """Return the rows of each frame that cuts whole leases, not groups of rows made from them, in order."""
    found = []
    depth = 0
    for node in nodes:
        if isinstance(node, Frame) and not depth:
            found.append(node.rows)
        opens = isinstance(node, (Fork, Sort)) or (isinstance(node, Call) and node.stage.kind == "flat_map")
        depth += opens - isinstance(node, (Join, Unsort, Close))
    return found


class _Builder:
    def __init__(self, spec: JobSpec, cpus: int) -> None:
        self._spec = spec
        self._cpus = cpus
        self._most_processes = _most_processes(_calls([*all_stages(spec.pipeline)]), cpus)
        self.nodes: list[Node] = []

    def add_chain(self, stages: Sequence[StageSpec]) -> int:
        """Append the nodes of `stages`; return how many groups are left open."""
        open_groups = 0
        hybrid: StageSpec | None = None
        for stage in stages:
            if stage.kind == "gather":
                self.nodes.append(Close(stage.name, stage.into))
                open_groups -= 1
            elif stage.kind == "parallel" or stage.when:
                self._add_fork(stage)
            else:
                self._add_step(stage, hybrid)
                open_groups += stage.kind == "flat_map"
            hybrid = stage if stage.on_gpu else None
        return open_groups

    def _add_fork(self, stage: StageSpec) -> None:
        inside = [each for branch in stage.parallel.values() for each in _calls(branch)] if stage.parallel else [stage]
        self._add_frame(stage, max((self._frame_rows(each) for each in inside), default=_FRAME_ROWS))
        at = len(self.nodes)
        self.nodes.append(Fork(stage.name, (), at, stage.when))
        entries = []
        for branch in stage.parallel.values():
            entries.append(len(self.nodes))
            self.add_chain(branch)
        if not entries:
            entries.append(len(self.nodes))
            self._add_step(stage, None)
        self.nodes[at] = Fork(stage.name, tuple(entries), len(self.nodes), stage.when)
        # To learn is to wait, and how long would depend on what rows come with.
        adds = stage.adds if stage.adds or self._spec.reproducible else None
        self.nodes.append(Join(stage.name, tuple(stage.parallel) or (stage.name,), stage.when, adds, drops_only=stage.kind == "filter"))

    def _add_step(self, stage: StageSpec, hybrid: StageSpec | None) -> None:
        if stage.bucket_by is not None:
            self._add_sorted(stage)
        else:
            self._add_call(stage, hybrid)

    def _add_sorted(self, stage: StageSpec) -> None:
        assert stage.bucket_by is not None
        buckets = Buckets(stage.bucket_by.column, stage.bucket_by.edges, stage.max_tokens)
        self._add_frame(stage, self._frame_rows(stage) * _FRAMES_TO_SORT)
        self.nodes += [Sort(stage.name, buckets), self._call(stage, None, buckets), Unsort(stage.name)]

    def _add_call(self, stage: StageSpec, hybrid: StageSpec | None) -> None:
        # What a hybrid stage frames is framed for the predictor too.
        if hybrid is None:
            self._add_frame(stage, self._frame_rows(stage))
        self.nodes.append(self._call(stage, hybrid, None))

    def _add_frame(self, stage: StageSpec, rows: int) -> None:
        if self._spec.reproducible:
            self.nodes.append(Frame(f"frame {stage.name}", rows))

    @staticmethod
    def _frame_rows(stage: StageSpec) -> int:
        return stage.batch_size if isinstance(stage.batch_size, int) else _FRAME_ROWS

    def _call(self, stage: StageSpec, hybrid: StageSpec | None, buckets: Buckets | None) -> Call:
        spec = self._spec
        auto_bytes = _AUTO_MODEL_BYTES if stage.kind == "predict" else _AUTO_BYTES
        limits = BatchLimits(_AUTO_ROWS, auto_bytes) if stage.batch_size == "auto" else BatchLimits(stage.batch_size)
        if spec.reproducible:
            limits = BatchLimits(self._frame_rows(stage), whole=True)
        share = hybrid.gpu_share if hybrid is not None else None
        return Call(
            self._stage_call(stage, stage.target, stage.args),
            limits,
            _copies(stage, self._cpus, _AUTO_COPIES),
            in_processes=stage.kind == "predict" or stage.workers_as == "processes",
            spec=stage,
            buckets=buckets,
            hybrid=None if hybrid is None else len(self.nodes) - 1,
            on_gpu=None if hybrid is None else self._stage_call(hybrid, hybrid.on_gpu, hybrid.on_gpu_args),
            gpu_share=None if share == "auto" else share,
            processes=_copies(stage, self._cpus, self._most_processes),
        )

    def _stage_call(self, stage: StageSpec, target: str, args: Mapping[str, object]) -> StageCall:
        return StageCall(
            name=stage.name,
            kind=stage.kind,
            target=target,
            base_dir=self._spec.base_dir,
            args=dict(args),
            batch_format=stage.batch_format,
            columns=None if stage.columns is None else list(stage.columns),
            tolerant=self._spec.quarantine.max_fraction >= 1,
        )


def _calls(stages: Sequence[StageSpec]) -> list[StageSpec]:
    return [stage for stage in stages if stage.target]


def _most_processes(calls: Sequence[StageSpec], cpus: int) -> int:
    """Return how many processes of a map stage work at first: with too few of them a device waits until somebody has found that out.

    All cores but one are shared among the stages that are left to us; a device that does some of their work as well takes three in ten of
    them to be fed. A model on the CPU wants them itself, and who is slower nobody knows.
    """
    left = [stage for stage in calls if stage.kind != "predict" and not isinstance(stage.concurrency, int) and not _is_idle(stage)]
    if not left or any(stage.kind == "predict" and not stage.num_gpus for stage in calls):
        return _AUTO_COPIES
    cores = cpus * 7 // 10 if any(stage.on_gpu and stage.gpu_share != 0 for stage in calls) else cpus - 1
    return max(_AUTO_COPIES, int(cores / sum(stage.num_cpus for stage in left)))


def _is_idle(stage: StageSpec) -> bool:
    """Tell whether the device does all of its work."""
    return bool(stage.on_gpu) and stage.gpu_share == 1


def _copies(stage: StageSpec, cpus: int, most: int) -> int:
    if isinstance(stage.concurrency, int):
        return stage.concurrency
    # One model by default: how many fit into memory only the user knows.
    auto = 1 if stage.kind == "predict" or _is_idle(stage) else min(cpus, most)
    if stage.concurrency == "auto":
        return auto
    fewest, most = stage.concurrency
    return min(max(auto, fewest), most)

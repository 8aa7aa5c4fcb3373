"""The pipeline as a chain of nodes: what runs each stage, how many of it, and how large its batches are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.stagecalls import StageCall

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec, StageSpec

_AUTO_ROWS = 4096
_AUTO_BYTES = 32 << 20
_AUTO_THREADS = 4


@dataclass(frozen=True, slots=True)
class Call:
    """A node that calls user code."""

    stage: StageCall
    limits: BatchLimits
    degree: int
    in_processes: bool

    @property
    def name(self) -> str:
        return self.stage.name


@dataclass(frozen=True, slots=True)
class Close:
    """A node that closes the innermost open group."""

    name: str
    into: str
    """Column that receives the children; empty: they become the rows."""


Node = Call | Close


def build(spec: JobSpec, cpus: int) -> list[Node]:
    """Return the nodes of `spec` in order. Groups that no gather closes are closed at the end."""
    nodes: list[Node] = []
    open_groups = 0
    for stage in spec.pipeline:
        if stage.kind == "gather":
            nodes.append(Close(stage.name, stage.into))
            open_groups -= 1
            continue
        nodes.append(_call(spec, stage, cpus))
        open_groups += stage.kind == "flat_map"
    nodes += [Close(f"flatten-{n}", "") for n in range(open_groups)]
    return nodes


def processes(nodes: list[Node]) -> int:
    """Count the processes that `nodes` need."""
    return sum(node.degree for node in nodes if isinstance(node, Call) and node.in_processes)


def _call(spec: JobSpec, stage: StageSpec, cpus: int) -> Call:
    in_processes = stage.kind == "predict" or stage.workers_as == "processes"
    call = StageCall(
        name=stage.name,
        kind=stage.kind,
        target=stage.target,
        base_dir=spec.base_dir,
        args=dict(stage.args),
        batch_format=stage.batch_format,
        columns=None if stage.columns is None else list(stage.columns),
        tolerant=spec.quarantine.max_fraction >= 1,
    )
    size = stage.batch_size
    limits = BatchLimits(_AUTO_ROWS, _AUTO_BYTES) if size == "auto" else BatchLimits(size)
    return Call(call, limits, _degree(stage, cpus), in_processes)


def _degree(stage: StageSpec, cpus: int) -> int:
    if isinstance(stage.concurrency, int):
        return stage.concurrency
    # One model by default: how many fit into memory only the user knows.
    auto = 1 if stage.kind == "predict" else min(cpus, _AUTO_THREADS)
    if stage.concurrency == "auto":
        return auto
    fewest, most = stage.concurrency
    return min(max(auto, fewest), most)

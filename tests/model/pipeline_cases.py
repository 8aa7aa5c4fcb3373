"""Random pipelines of the modelled steps, as job files say them, and random circumstances to run them in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from antinfer.spec.schema import JobSpec
from tests.model.pipeline_steps import Step

TARGETS = {"map": "Double", "filter": "Keep", "spread": "Spread", "total": "Total", "bucket": "Double", "hybrid": "Double"}
KINDS = {"filter": "filter", "spread": "flat_map"}
CODE = "tests.model.pipeline_steps:"
GROW = 1000
"""Values of a shard begin at this multiple of its number."""


@dataclass(frozen=True)
class Case:
    steps: tuple[Step, ...]
    batch_rows: tuple[int, ...]
    shards: tuple[tuple[int, bool], ...]
    """Rows of each shard, and whether the plan knows them."""
    orders: tuple[tuple[str, int, float], ...]
    """What the agent is made to do after each message of the host: what, to which lease, at what share of its rows."""
    threads: int
    chunk_rows: int
    queue_bytes: int
    credit_bytes: int
    part_bytes: int
    interval: float
    gpu_share: float | str
    is_reproducible: bool

    def values(self, shard: int) -> range:
        return range(shard * GROW, shard * GROW + self.shards[shard][0])

    def spec(self) -> JobSpec:
        sizes = iter(self.batch_rows * 40)
        return JobSpec.model_validate(
            {
                "source": {"type": "text", "path": "/in"},
                "pipeline": [stage for step in self.steps for stage in _stages(step, sizes, self)],
                "sink": {"path": "/out"},
                "quarantine": {"max_fraction": 1},
                "reproducible": self.is_reproducible,
            }
        )


def _stages(step: Step, sizes: Any, case: Case) -> list[dict[str, Any]]:
    """Return the stages of the job file that a modelled step stands for."""

    def call(name: str, *, kind: str = "map_batches", **keys: Any) -> dict[str, Any]:
        return {kind: CODE + name, "batch_size": next(sizes), **keys}

    bad = {"args": {"bad": list(step.bad)}}
    if step.kind == "gather":
        return [{"gather": {"into": "kids"}}]
    if step.kind == "bucket":
        return [call("Scramble"), call("Double", **bad, columns=["v"], bucket_by={"column": "k", "edges": [10, 25]}, max_tokens=120)]
    if step.kind == "hybrid":
        raw = call("Double", **bad, on_gpu=f"{CODE}Double", on_gpu_args={"bad": list(step.bad)}, gpu_share=case.gpu_share)
        model = call("Double", kind="predict", num_gpus=1)
        return [raw, {**model, "batch_size": raw["batch_size"]} if case.is_reproducible else model]
    if step.kind == "when":
        return [call("Flag"), call("Replace", **bad, when="go", adds=["w"]), call("Merge")]
    if step.kind == "when_filter":
        return [call("Flag"), call("Keep", kind="filter", **bad, when="go"), call("Merge")]
    if step.kind in ("parallel", "when_branches"):
        condition = {"when": "go", "adds": ["w"]} if step.kind == "when_branches" else {}
        branches = {
            f"b{at}": [
                *(stage for each in branch for stage in _stages(each, sizes, case)),
                call("Name", args={"name": "w" if condition else f"n{at}"}),
            ]
            for at, branch in enumerate(step.branches)
        }
        before, after = ([call("Flag")], call("Merge")) if condition else ([], call("Sum"))
        return [*before, {"parallel": branches, **condition}, after]
    return [call(TARGETS[step.kind], kind=KINDS.get(step.kind, "map_batches"), **bad)]


BAD = st.lists(st.integers(0, 60), max_size=3).map(tuple)


@st.composite
def steps(draw: Any, *, depth: int = 0, most: int = 5) -> list[Step]:
    """Draw steps; inside of a branch (`depth` > 0) every spread is gathered."""
    found: list[Step] = []
    open_groups = 0
    plain = ["map", "filter", "spread", "gather", "bucket", "hybrid", "when", "when_filter"]
    for kind in draw(st.lists(st.sampled_from(plain + ["parallel", "when_branches"] * (depth < 2)), max_size=most)):
        if kind == "gather":
            if open_groups:
                open_groups -= 1
                found += [Step("gather"), Step("total", draw(BAD))]
        elif kind in ("parallel", "when_branches"):
            count = draw(st.integers(1, 3)) if kind == "parallel" else 1
            found.append(Step(kind, (), tuple(tuple(draw(steps(depth=depth + 1, most=2))) for _ in range(count))))
        elif kind != "spread" or open_groups < 2:
            open_groups += kind == "spread"
            found.append(Step(kind, draw(BAD)))
    if depth:
        found += [Step("gather"), Step("total")] * open_groups
    return found


@st.composite
def cases(draw: Any, *, reproducible: bool = False) -> Case:
    """Draw a pipeline and how it is run."""
    # The first one leaves only its own column, as the others expect.
    pipeline = [Step("map", draw(BAD)), *draw(steps())]
    small = st.sampled_from
    shares = [0, 1] if reproducible else [0, 1, "auto", 0.3]
    orders = st.tuples(small(["", "yield", "regrant", "head", "tail"]), st.integers(0, 3), st.floats(0, 1))
    return Case(
        steps=tuple(pipeline),
        batch_rows=tuple(draw(st.lists(st.integers(1, 20), min_size=5, max_size=5))),
        shards=tuple(draw(st.lists(st.tuples(st.integers(0, 60), st.booleans()), min_size=1, max_size=4))),
        orders=tuple(draw(st.lists(orders, max_size=12))),
        threads=draw(st.integers(1, 3)),
        chunk_rows=draw(st.integers(1, 70)),
        queue_bytes=draw(small([1, 100, 1 << 20])),
        credit_bytes=draw(small([1, 300, 1 << 20])),
        part_bytes=draw(small([1, 2000, 1 << 20])),
        interval=draw(small([0.0, 0.005, 3600.0])),
        gpu_share=draw(small(shares)),
        is_reproducible=reproducible,
    )


def calm(case: Case) -> Case:
    """Return the same work under other circumstances: one thread of each kind, whole chunks, no orders."""
    return replace(case, orders=(), threads=1, chunk_rows=1000, queue_bytes=1 << 20, credit_bytes=1 << 20, interval=3600.0)

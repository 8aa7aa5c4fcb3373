from __future__ import annotations

from typing import Any

import pytest

from antinfer.spec.schema import JobSpec
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.buckets import Buckets
from antinfer.worker.pipeline.graph import Call, Close, Fork, Join


def build(*stages: dict[str, Any], cpus: int = 8, **fields: Any) -> list[graph.Node]:
    source, sink = {"type": "parquet", "path": "/in"}, {"path": "/out"}
    spec = JobSpec.model_validate({"source": source, "pipeline": stages, "sink": sink, "base_dir": "/code", **fields})
    return graph.build(spec, cpus)


def test_a_chain_with_gather_and_an_open_end() -> None:
    nodes = build({"flat_map": "m:f"}, {"flat_map": "m:g"}, {"predict": "m:P"}, {"gather": {"into": "c"}})
    assert [type(node) for node in nodes] == [Call, Call, Call, Close, Close]
    assert [node.into for node in nodes if isinstance(node, Close)] == ["c", ""]


@pytest.mark.parametrize(
    ("stage", "cpus", "degree", "in_processes"),
    [
        ({"predict": "m:P"}, 8, 1, True),
        ({"predict": "m:P", "concurrency": 3}, 8, 3, True),
        ({"predict": "m:P", "concurrency": [2, 5]}, 8, 2, True),
        ({"map_batches": "m:f"}, 8, 4, False),
        ({"map_batches": "m:f"}, 2, 2, False),
        ({"map_batches": "m:f", "concurrency": [1, 3]}, 8, 3, False),
        ({"map_batches": "m:f", "workers_as": "processes", "concurrency": 2}, 8, 2, True),
        ({"map_batches": "m:f", "workers_as": "processes"}, 8, 4, True),
    ],
)
def test_degrees(stage: dict[str, Any], cpus: int, degree: int, in_processes: bool) -> None:
    (node,) = build(stage, cpus=cpus)
    assert isinstance(node, Call) and (node.degree, node.in_processes) == (degree, in_processes)
    assert graph.processes([node]) == (degree if in_processes else 0)


ON_GPU = {"predict": "m:P", "num_gpus": 1}
ON_CPU = {"predict": "m:P"}


@pytest.mark.parametrize(
    ("stages", "cpus", "processes"),
    [
        ([{"map_batches": "m:f"}, ON_GPU], 16, [15, 1]),
        ([{"map_batches": "m:f"}], 16, [15]),
        ([{"map_batches": "m:f", "on_gpu": "m:F"}, ON_GPU], 16, [11, 1]),
        ([{"map_batches": "m:f"}, ON_CPU], 16, [4, 1]),
        ([{"map_batches": "m:f"}, ON_GPU], 2, [2, 1]),
        ([{"map_batches": "m:f"}, {"flat_map": "m:g"}, ON_GPU], 16, [7, 7, 1]),
        ([{"map_batches": "m:f", "num_cpus": 2}, {"map_batches": "m:g"}, ON_GPU], 16, [5, 5, 1]),
        ([{"map_batches": "m:f", "concurrency": 3}, {"map_batches": "m:g", "concurrency": [1, 6]}, ON_GPU], 16, [3, 6, 1]),
        ([{"parallel": {"a": [{"map_batches": "m:f"}, ON_GPU], "b": [{"map_batches": "m:g"}, ON_GPU]}}], 16, [7, 1, 7, 1]),
        ([{"parallel": {"a": [{"map_batches": "m:f"}], "b": [ON_CPU]}}], 16, [4, 1]),
        ([{"map_batches": "m:f", "on_gpu": "m:F", "gpu_share": 0}, ON_GPU], 16, [15, 1]),
        ([{"map_batches": "m:f", "on_gpu": "m:F", "gpu_share": 1}, ON_GPU], 16, [1, 1]),
        ([{"map_batches": "m:f", "on_gpu": "m:F", "gpu_share": 1, "concurrency": [2, 9]}, ON_GPU], 16, [2, 1]),
        ([{"filter": "m:f"}, {"map_batches": "m:f", "on_gpu": "m:F", "gpu_share": 1}, ON_GPU], 16, [11, 1, 1]),
    ],
)
def test_processes_work_on_all_cores_that_no_model_wants(stages: list[dict[str, Any]], cpus: int, processes: list[int]) -> None:
    nodes = build(*stages, cpus=cpus)
    assert [node.processes for node in nodes if isinstance(node, Call)] == processes
    calls = [node for node in nodes if isinstance(node, Call)]
    isolated = [node for node in graph.isolated(nodes) if isinstance(node, Call)]
    assert all(node.in_processes for node in isolated)
    assert [(node.degree, node.processes) for node in isolated] == [(node.degree, node.degree) for node in calls]


def test_a_call_knows_what_its_process_needs() -> None:
    (node,) = build(
        {"predict": "m:P", "batch_size": 7, "columns": ["x"], "args": {"a": 1}, "batch_format": "arrow"}, quarantine={"max_fraction": 1}
    )
    assert isinstance(node, Call) and node.limits == BatchLimits(7)
    stage = node.stage
    assert (stage.target, stage.base_dir, stage.args, stage.columns, stage.tolerant) == ("m:P", "/code", {"a": 1}, ["x"], True)


def test_branches_lie_between_fork_and_join_and_know_their_neighbours() -> None:
    nodes = build(
        {"map_batches": "m:first"},
        {"parallel": {"a": [{"predict": "m:A"}, {"map_batches": "m:a2"}], "b": [{"flat_map": "m:b"}, {"gather": {"into": "k"}}]}},
        {"predict": "m:Last"},
    )
    assert [type(node) for node in nodes] == [Call, Fork, Call, Call, Call, Close, Join, Call]
    fork = nodes[1]
    assert isinstance(fork, Fork) and (fork.branches, fork.join) == ((2, 4), 6)
    routes = graph.routes(nodes)
    assert routes.after == (1, 7, 3, 6, 5, 6, 7, 8)
    assert routes.outlets == ((2, 4), (2, 4), (3,), (7,), (7,), (7,), (7,), ())
    assert routes.feeders[7] == (3, 4) and routes.feeders[2] == routes.feeders[4] == (0,)
    # What happens in one branch is nothing to the other.
    assert routes.ancestors[4] == {0, 1} and routes.ancestors[7] == set(range(7))
    assert routes.joins[3] == (6,) and routes.joins[2] == () and routes.joins[4] == (6,)


def test_a_condition_is_a_branch_of_its_own() -> None:
    nodes = build({"predict": "m:P", "when": "hard", "adds": ["big"]}, {"filter": "m:f", "when": "ok"})
    assert [type(node) for node in nodes] == [Fork, Call, Join, Fork, Call, Join]
    assert [node.when for node in nodes if isinstance(node, Fork)] == ["hard", "ok"]
    joins = [node for node in nodes if isinstance(node, Join)]
    assert [(node.adds, node.drops_only) for node in joins] == [(("big",), False), (None, True)]


def test_rows_are_sorted_before_and_after_a_stage_with_buckets() -> None:
    nodes = build({"predict": "m:P", "bucket_by": {"column": "n", "edges": [8]}, "max_tokens": 99, "batch_size": 4})
    assert [type(node) for node in nodes] == [graph.Sort, Call, graph.Unsort]
    call = nodes[1]
    assert isinstance(call, Call) and call.buckets == Buckets("n", (8,), 99)


def test_a_predictor_knows_the_hybrid_stage_before_it() -> None:
    hybrid = {"map_batches": "m:f", "on_gpu": "m:F", "on_gpu_args": {"size": 3}, "gpu_share": 0.5, "columns": ["jpeg"]}
    _, first, second = build({"filter": "m:g"}, hybrid, {"predict": "m:P", "num_gpus": 1})
    assert isinstance(first, Call) and first.hybrid is None
    assert isinstance(second, Call) and (second.hybrid, second.gpu_share) == (1, 0.5)
    on_gpu = second.on_gpu
    assert on_gpu is not None and (on_gpu.target, on_gpu.args, on_gpu.columns) == ("m:F", {"size": 3}, ["jpeg"])


def test_a_reproducible_job_frames_what_every_call_sees() -> None:
    fan_out = [{"flat_map": "m:g"}, {"predict": "m:P", "batch_size": 4}, {"gather": {"into": "k"}}]
    nodes = build({"map_batches": "m:f", "batch_size": 6}, *fan_out, {"predict": "m:Q", "batch_size": 10}, reproducible=True)
    kinds = [type(node).__name__ for node in nodes]
    assert kinds == ["Frame", "Call", "Frame", "Call", "Frame", "Call", "Close", "Frame", "Call"]
    # The frame inside of the group cuts groups, not leases.
    assert graph.root_frames(nodes) == [6, 1024, 10]
    assert all(node.limits.whole for node in nodes if isinstance(node, Call))

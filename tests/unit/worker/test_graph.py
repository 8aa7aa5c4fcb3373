from __future__ import annotations

from typing import Any

import pytest

from antinfer.spec.schema import JobSpec
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call, Close


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
    ],
)
def test_degrees(stage: dict[str, Any], cpus: int, degree: int, in_processes: bool) -> None:
    (node,) = build(stage, cpus=cpus)
    assert isinstance(node, Call) and (node.degree, node.in_processes) == (degree, in_processes)
    assert graph.processes([node]) == (degree if in_processes else 0)


def test_a_call_knows_what_its_process_needs() -> None:
    (node,) = build(
        {"predict": "m:P", "batch_size": 7, "columns": ["x"], "args": {"a": 1}, "batch_format": "arrow"}, quarantine={"max_fraction": 1}
    )
    assert isinstance(node, Call) and node.limits == BatchLimits(7)
    stage = node.stage
    assert (stage.target, stage.base_dir, stage.args, stage.columns, stage.tolerant) == ("m:P", "/code", {"a": 1}, ["x"], True)

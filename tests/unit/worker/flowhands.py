"""A flow whose batches are taken and finished by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from antinfer.spec.schema import JobSpec
from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline import graph
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.splitter import Outcome


def make(*stages: dict[str, Any]) -> tuple[Flow, list[Piece]]:
    source, sink = {"type": "parquet", "path": "/in"}, {"path": "/out"}
    spec = JobSpec.model_validate({"source": source, "pipeline": stages, "sink": sink})
    found: list[Piece] = []
    return Flow(graph.build(spec, 1), found.append), found


def at(flow: Flow, name: str) -> int:
    return next(index for index, node in enumerate(flow.nodes) if isinstance(node, graph.Call) and node.name == name)


def piece(root: Root, begin: int, rows: int, **columns: Any) -> Piece:
    return Piece(root, begin, begin + rows, pa.record_batch({"x": np.arange(begin, begin + rows), **columns}))


def took(flow: Flow, name: str) -> Assembled:
    call = flow.take(at(flow, name))
    assert call is not None
    return call


def batch_of(call: Assembled) -> pa.RecordBatch:
    return call.batch(lambda batch: batch)


def run(flow: Flow, name: str, work: Callable[[pa.RecordBatch], pa.RecordBatch]) -> pa.RecordBatch:
    call = took(flow, name)
    batch = batch_of(call)
    flow.finish(at(flow, name), call, Outcome(work(batch)), 0.0)
    return batch

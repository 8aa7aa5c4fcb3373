"""`timeout` and `max_lifetime` of a stage: what is allowed, and what a worker reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from antinfer.spec.canonical import document_json
from antinfer.spec.normal import normal_job
from antinfer.spec.schema import JobSpec, StageSpec
from antinfer.worker.pipeline.leaks import lifetime


def stage(**keys: Any) -> StageSpec:
    return StageSpec.model_validate({"predict": "steps:Model", **keys})


@pytest.mark.parametrize(
    ("given", "read"),
    [("off", (None, None)), (False, (None, None)), (1000, (1000, None)), ("30m", (None, 1800.0)), ("250ms", (None, 0.25))],
)
def test_a_lifetime_survives_its_way_to_a_worker(given: object, read: object) -> None:
    spec = JobSpec.model_validate(
        {"source": {"type": "text", "path": "in"}, "pipeline": [stage(max_lifetime=given, timeout="1m")], "sink": {"path": "out"}}
    )
    (found,) = normal_job(json.loads(document_json(spec))).pipeline
    assert lifetime(found.max_lifetime) == read and found.timeout == 60.0


@pytest.mark.parametrize("value", [0, -1, True, "soon", "0s", 1.5, None])
def test_no_other_lifetime_is_allowed(value: object) -> None:
    with pytest.raises(ValidationError, match="max_lifetime"):
        stage(max_lifetime=value)


def test_a_stage_that_calls_nothing_takes_neither() -> None:
    with pytest.raises(ValidationError, match="takes only"):
        StageSpec.model_validate({"gather": {"into": "x"}, "timeout": 3})

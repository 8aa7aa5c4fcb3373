"""Pipelines that branch, in the job file and in Python: the same job, and refusals that say what is wrong where."""

from __future__ import annotations

from typing import Any

import pytest

import antinfer as ai
from antinfer.errors import JobFileError, UsageError
from antinfer.spec.canonical import canonical_json, explain_changes, from_document, job_fingerprint, to_yaml
from antinfer.spec.load import build_job
from antinfer.spec.normal import all_stages
from antinfer.spec.schema import JobSpec
from antinfer.spec.yamlfile import Lines, read_yaml

YAML = """\
source: {type: parquet, path: /photos}
pipeline:
  - map_batches: steps:decode
    on_gpu: steps:DecodeOnGpu
    on_gpu_args: {size: 224}
    gpu_share: 0.5
  - predict: steps:Small
    num_gpus: 0.5
  - predict: steps:Big
    when: unsure
    adds: [reason]
    bucket_by: {column: tokens, edges: [32, 64]}
    max_tokens: 4096
  - parallel:
      faces:
        - flat_map: steps:find
        - predict: steps:Embed
        - gather: {into: faces}
      scene:
        - filter: steps:is_clear
          when: outside
        - predict: steps:Scene
    when: photo
tuning: off
sink: {path: /out}
"""


def load(text: str) -> JobSpec:
    raw, lines = read_yaml(text, "job.yaml")
    return build_job(raw, lines, "/base")


def in_python() -> ai.Job:
    return (
        ai.read_parquet("/photos")
        .map_batches("steps:decode", on_gpu="steps:DecodeOnGpu", on_gpu_kwargs={"size": 224}, gpu_share=0.5)
        .predict("steps:Small", num_gpus=0.5)
        .predict("steps:Big", when="unsure", adds=["reason"], bucket_by=("tokens", [32, 64]), max_tokens=4096)
        .parallel(
            when="photo",
            faces=lambda rows: rows.flat_map("steps:find").predict("steps:Embed").gather("faces"),
            scene=lambda rows: rows.filter("steps:is_clear", when="outside").predict("steps:Scene"),
        )
        .tuning("off")
        .write_parquet("/out")
    )


def test_the_file_and_python_make_the_same_job() -> None:
    spec = load(YAML)
    assert spec.pipeline == in_python().spec.pipeline and in_python().spec.tuning == spec.tuning == "off"
    assert from_document(canonical_json(spec)).pipeline == spec.pipeline
    assert load(to_yaml(spec)) == spec
    assert [stage.name for stage in all_stages(spec.pipeline)] == [
        *("decode", "Small", "Big", "parallel"),
        *("find", "Embed", "gather", "is_clear", "Scene"),
    ]


def test_branches_with_names_of_any_kind() -> None:
    made = ai.read_parquet("/p").parallel({"when": lambda rows: rows.predict("a:B")}, other=lambda rows: rows.predict("a:C"))
    assert list(made.write_parquet("/o").spec.pipeline[0].parallel) == ["when", "other"]


def test_branches_take_steps_and_nothing_else() -> None:
    with pytest.raises(UsageError, match="branch 'a' must return the rows it got with steps added"):
        ai.read_parquet("/p").parallel(a=lambda rows: rows.predict("a:B").carryover("x"))
    with pytest.raises(JobFileError, match="branch 'a' has no steps"):
        ai.read_parquet("/p").parallel(a=lambda rows: rows)


def refused(*stages: Any, **fields: Any) -> str:
    job = {"source": {"type": "text", "path": "/a"}, "pipeline": list(stages), "sink": {"path": "/o"}, **fields}
    with pytest.raises(JobFileError) as caught:
        build_job(job, Lines("f", {}), "/")
    return str(caught.value)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"flat_map": "a:b", "when": "c"}], "pipeline.0: when: only for .* put the steps into one branch of a parallel"),
        ([{"gather": {"into": "x"}, "when": "c"}], "gather takes only into"),
        ([{"predict": "a:b", "adds": ["c"]}], "adds needs when"),
        ([{"predict": "a:b", "max_tokens": 4}], "max_tokens needs bucket_by"),
        ([{"predict": "a:b", "bucket_by": {"column": "n", "edges": [3, 2]}}], "bucket_by.edges: must be a list of ascending whole numbers"),
        ([{"filter": "a:b", "bucket_by": {"column": "n"}}], "bucket_by: only for map_batches, predict"),
        ([{"predict": "a:b", "gpu_share": 0.5}], "gpu_share needs on_gpu"),
        ([{"map_batches": "a:b", "on_gpu": "a:c", "gpu_share": 2}], "gpu_share: must be auto or a number from 0 to 1, not 2"),
        ([{"predict": "__main__:Model"}], "predict: __main__ is another program in a worker; name the file of Model"),
        ([{"map_batches": "a:b", "on_gpu": "gpu"}], "on_gpu: map_batches must name user code as module:name"),
        ([{"map_batches": "a:b", "on_gpu": "a:c"}], "stage 0: on_gpu runs inside a predictor"),
        ([{"map_batches": "a:b", "on_gpu": "a:c"}, {"predict": "a:d"}], "a predict with num_gpus above 0"),
        ([{"map_batches": "a:b", "on_gpu": "a:c", "when": "x"}, {"predict": "a:d", "num_gpus": 1}], "on_gpu cannot be together with when"),
        ([{"parallel": {}}], "parallel must be written as"),
        ([{"parallel": {"x": []}}], "branch 'x' has no steps"),
        ([{"parallel": {"x": [{"flat_map": "a:b"}]}}], "stage 0, branch 'x': a flat_map is not closed; add gather"),
        ([{"flat_map": "a:b"}, {"parallel": {"x": [{"gather": {"into": "k"}}]}}], "branch 'x': stage 0 gathers what no flat_map"),
        ([{"parallel": {"x": [{"predict": "a:b", "batchsize": 3}]}}], r"pipeline.0.parallel.x.0.batchsize: unknown key.*'batch_size'"),
        ([{"parallel": {"x": [{"predict": "a:b", "batch_size": 0}]}}], "pipeline.0.parallel.x.0.batch_size: must be auto or"),
        (
            [{"parallel": {"x": [{"flat_map": "a:b"}, {"gather": {"into": "k"}}], "y": [{"flat_map": "a:b"}, {"gather": {"into": "k"}}]}}],
            "the branches 'x' and 'y' both gather into 'k'",
        ),
        ([{"parallel": {"x": [{"predict": "a:b", "name": "n"}]}}, {"predict": "a:b", "name": "n"}], "two stages are named 'n'"),
    ],
)
def test_what_does_not_fit_is_named(stages: list[Any], message: str) -> None:
    import re

    assert re.search(message, refused(*stages)), refused(*stages)


def test_a_reproducible_job_needs_sizes_that_are_not_measured() -> None:
    assert "stage 'b' needs a number as its batch_size" in refused({"predict": "a:b"}, reproducible=True)
    assert "stage 'b' needs a number as its batch_size" in refused({"parallel": {"x": [{"predict": "a:b"}]}}, reproducible=True)
    hybrid = {"map_batches": "a:b", "on_gpu": "a:c", "batch_size": 4}
    model = {"predict": "a:d", "num_gpus": 1}
    assert "need the same batch_size" in refused(hybrid, {**model, "batch_size": 8}, reproducible=True)
    assert "needs gpu_share 0 or 1" in refused(hybrid, {**model, "batch_size": 4}, reproducible=True)


def job(**fields: Any) -> JobSpec:
    stage = {"parallel": {"x": [{"predict": "a:b", "batch_size": 4, **fields.pop("stage", {})}]}}
    return JobSpec.model_validate({"source": {"type": "text", "path": "/a"}, "pipeline": [stage], "sink": {"path": "/o"}, **fields})


def test_what_is_only_about_speed_may_change_inside_of_branches_too() -> None:
    faster = job(stage={"batch_size": 8, "concurrency": 2, "bucket_by": {"column": "n"}}, tuning="off")
    assert explain_changes(canonical_json(job()), canonical_json(faster)) == []
    assert job_fingerprint(job()) == job_fingerprint(faster)
    changed = explain_changes(canonical_json(job()), canonical_json(job(stage={"args": {"n": 1}})))
    assert changed == ["pipeline.0.parallel.x.0.args.n was not given, is now 1"]


def test_the_batches_of_a_reproducible_job_may_not_change() -> None:
    one, other = job(reproducible=True), job(reproducible=True, stage={"batch_size": 8})
    assert explain_changes(canonical_json(one), canonical_json(other)) == ["pipeline.0.parallel.x.0.batch_size was 4, is now 8"]
    assert job_fingerprint(one) != job_fingerprint(other)

"""What Ray is asked for, from what the job and its user say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from antinfer.errors import JobFileError
from antinfer.launchers.certificates import make_certificates
from antinfer.launchers.ray.settings import SERVER_NAME, RaySettings, actor_options, ray_settings, request_of
from antinfer.spec.load import build_job
from antinfer.spec.schema import JobSpec
from antinfer.spec.yamlfile import Lines


def job(folder: Path, *stages: dict[str, Any], **workers: Any) -> JobSpec:
    (folder / "steps.py").write_text("import helpers\n\n\nclass Model: ...\n")
    (folder / "helpers.py").write_bytes("# caf\xe9\n".encode("latin-1"))
    pipeline = list(stages) or [{"predict": "steps:Model"}]
    source = {"type": "parquet", "path": "in"}
    return build_job({"source": source, "pipeline": pipeline, "sink": {"path": "out"}, "workers": workers}, Lines("x", {}), str(folder))


@pytest.mark.parametrize(
    ("stages", "asked"),
    [
        ([{"predict": "steps:Model"}], {"num_cpus": 1}),
        ([{"map_batches": "steps:a", "concurrency": [4, 8]}, {"predict": "steps:Model", "num_cpus": 2}], {"num_cpus": 6}),
        ([{"map_batches": "steps:a", "num_cpus": 0.5}, {"predict": "steps:Model", "num_cpus": 0.7}], {"num_cpus": 2}),
        ([{"predict": "steps:Model", "num_gpus": 0.25}], {"num_cpus": 1, "num_gpus": 1}),
        ([{"predict": "steps:Model", "num_gpus": 0.5, "concurrency": 3}], {"num_cpus": 3, "num_gpus": 2}),
        (
            [{"parallel": {"x": [{"predict": "steps:Model"}], "y": [{"predict": "steps:Model", "num_gpus": 2}]}}],
            {"num_cpus": 2, "num_gpus": 2},
        ),
    ],
)
def test_a_worker_asks_for_what_a_copy_of_each_stage_needs(tmp_path: Path, stages: list[dict[str, Any]], asked: dict[str, float]) -> None:
    assert actor_options(job(tmp_path, *stages), {}) == {"preemptible": asked}


def test_classes_ask_for_what_they_have(tmp_path: Path) -> None:
    classes = {"protected": {"gpus": 0.5, "memory": "8GiB"}, "preemptible": {"gpus": 4}}
    spec = job(tmp_path, {"predict": "steps:Model", "num_gpus": 0.25}, on_demand=0.5, classes=classes)

    assert actor_options(spec, {}) == {
        "protected": {"num_cpus": 1, "num_gpus": 0.5, "memory": 2**33},
        "preemptible": {"num_cpus": 1, "num_gpus": 4},
    }


def test_what_the_user_says_is_laid_over_that_the_class_last(tmp_path: Path) -> None:
    said = {"worker": {"num_cpus": 8, "memory": "2GiB"}, "preemptible": {"memory": "1GiB", "resources": {"spot": 1}}}

    options = actor_options(job(tmp_path), said)["preemptible"]

    assert options == {"num_cpus": 8, "memory": 2**30, "resources": {"spot": 1}}
    assert request_of(options) == {"CPU": 8, "memory": 2**30, "spot": 1}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"worker": {"num_cpu": 1}}, "worker: 'num_cpu' is not one of num_cpus, .*did you mean 'num_cpus'?"),
        ({"protected": {"memory": "much"}}, "protected: memory: must be a size"),
        ({"worker": {"max_restarts": 3}}, "'max_restarts' is not one of"),
    ],
)
def test_what_actors_do_not_have_is_named(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    with pytest.raises(JobFileError, match=words):
        actor_options(job(tmp_path), said)


def made(folder: Path) -> RaySettings:
    certificates = make_certificates([SERVER_NAME])
    return ray_settings(
        job(folder), {}, master="10.0.0.1:5", token="t", certificates=certificates, output=str(folder / "out"), verbose=False
    )


def test_the_users_files_go_along_byte_by_byte(tmp_path: Path) -> None:
    settings = RaySettings.from_json(made(tmp_path).to_json())

    assert settings.code.keys() == {"steps.py", "helpers.py"}
    assert settings.code["helpers.py"].encode("utf-8", "surrogateescape") == (tmp_path / "helpers.py").read_bytes()


def test_nodes_with_another_version_say_so(tmp_path: Path) -> None:
    data = json.loads(made(tmp_path).to_json()) | {"antinfer": "0.0.1", "something": "new"}

    with pytest.raises(JobFileError, match=r"antinfer .* is installed here, and 0.0.1 where the job was started"):
        RaySettings.from_json(json.dumps(data))

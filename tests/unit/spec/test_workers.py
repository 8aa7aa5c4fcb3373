"""What a job says about its workers: mistakes, and what the controller is asked for."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

import antinfer as ai
from antinfer.core.scaling.values import PREEMPTIBLE, PROTECTED, Allowance, Desired, WorkerClass
from antinfer.errors import JobFileError
from antinfer.spec.canonical import document_json
from antinfer.spec.normal import normal_job
from antinfer.spec.problems import job_file_error
from antinfer.spec.schema import JobSpec
from antinfer.spec.workers import desired_workers
from antinfer.spec.yamlfile import Lines
from tests.unit.spec.jobs import sample

FULL = {
    "min": 2,
    "max": 64,
    "on_demand": 0.6,
    "deadline": "6h",
    "budget": {"money": 250, "gpu_hours": 40},
    "surge": 8,
    "classes": {
        "protected": {"gpus": 2, "price": 3.2},
        "preemptible": {"price": 1.1, "memory": "16GiB", "max_memory": "64GiB"},
    },
}


def complaint(workers: object) -> str:
    with pytest.raises(ValidationError) as caught:
        sample(workers=workers)
    return str(job_file_error(caught.value, Lines("job.yaml", {})))


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        ({"budget": {}}, "workers.budget: needs gpu_hours, money or both"),
        ({"budget": {"gpu_hours": 0}}, "workers.budget.gpu_hours: must be above 0.0, not 0"),
        ({"budget": 40}, "workers.budget: must be a mapping with the keys gpu_hours, money, not 40"),
        ({"budget": {"gpu_hour": 4}}, "workers.budget.gpu_hour: unknown key; allowed: gpu_hours, money; did you mean 'gpu_hours'?"),
        ({"budget": {"money": 9}}, "workers: budget.money needs classes.preemptible.price, the money for one such worker for an hour"),
        (
            {"budget": {"money": 9}, "on_demand": 0.5, "classes": {"preemptible": {"price": 1}}},
            "workers: budget.money needs classes.protected.price, the money for one such worker for an hour",
        ),
        (
            {"budget": {"gpu_hours": 9}, "classes": {"preemptible": {"gpus": 0}}},
            "workers: budget.gpu_hours counts nothing, since classes.preemptible.gpus is 0",
        ),
        ({"surge": -1}, "workers.surge: must be at least 0, not -1"),
        ({"classes": {"spot": {}}}, "workers.classes.spot: unknown key; allowed: protected, preemptible"),
        (
            {"classes": {"protected": {"memory": "auto"}}},
            "workers.classes.protected.memory: must be a size such as 64MB, 128MiB or 1GB (a bare number is bytes), not 'auto'",
        ),
        ({"classes": {"protected": {"max_memory": "1GiB"}}}, "workers.classes.protected: max_memory needs memory, from which it is raised"),
        (
            {"classes": {"protected": {"memory": "2GiB", "max_memory": "1GiB"}}},
            "workers.classes.protected: max_memory (1073741824) must not be below memory (2147483648)",
        ),
    ],
)
def test_mistakes_name_the_field_and_the_way_out(workers: object, text: str) -> None:
    assert complaint(workers) == f"job.yaml: {text}"


@pytest.mark.parametrize(
    ("keys", "prices"),
    [({"on_demand": 1.0, "classes": {"protected": {"price": 3}}}, (3, None)), ({"classes": {"preemptible": {"price": 0}}}, (None, 0))],
    ids=["protected", "preemptible"],
)
def test_a_price_is_only_needed_for_workers_that_there_can_be(keys: dict[str, object], prices: tuple[float | None, float | None]) -> None:
    classes = sample(workers={"budget": {"money": 9}, **keys}).workers.classes
    assert (classes.protected.price, classes.preemptible.price) == prices


@pytest.mark.parametrize("as_read_by_a_master", [False, True])
def test_what_the_controller_is_asked_for(as_read_by_a_master: bool) -> None:
    spec = sample(workers=FULL)
    if as_read_by_a_master:
        spec = normal_job(json.loads(document_json(spec)))
    assert desired_workers(spec.workers, prefix="faces-3", most=9, started_at=1_000) == Desired(
        prefix="faces-3",
        least=2,
        most=64,
        on_demand=0.6,
        deadline_at=1_000 + 6 * 3_600_000,
        started_at=1_000,
        allowance=Allowance(gpu_hours=40, money=250),
        classes={PROTECTED: WorkerClass(2, 3.2), PREEMPTIBLE: WorkerClass(1, 1.1, 16 * 2**30, 64 * 2**30)},
        surge=8,
    )


def test_where_a_job_says_nothing_the_launcher_says_how_many() -> None:
    wish = desired_workers(sample().workers, prefix="x", most=9, started_at=0)
    assert (wish.least, wish.most, wish.deadline_at, wish.allowance, wish.surge) == (1, 9, None, Allowance(), None)


def test_the_same_from_python() -> None:
    dataset = ai.read_parquet("/data").map_batches("steps:decode").workers(**FULL)
    spec: JobSpec = dataset.write_parquet("/out").spec
    assert spec.workers == sample(workers=FULL).workers
    with pytest.raises(JobFileError, match=r"workers\.budget: needs gpu_hours, money or both"):
        dataset.workers(budget={})

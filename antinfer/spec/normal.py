"""A job as its normalised document says: for masters and workers, which run what somebody else has checked.

Checking takes pydantic, and pydantic takes as long to import as a master takes to plan a small job. A document that a `JobSpec` was written
to needs neither: every key is there, and every value is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, cast, get_args

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec, StageSpec

StageKind = Literal["map_batches", "predict", "flat_map", "filter", "gather", "parallel"]
STAGE_KINDS: Final[tuple[StageKind, ...]] = get_args(StageKind)
_SECTIONS: Final = frozenset(("source", "sink", "quarantine", "shard", "task", "workers", "store"))


class Fields:
    """Values under the names that a model of `antinfer.spec.schema` gives them. Read only, and without the model's methods."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        # The sequences of a model are tuples, which JSON does not know. What is inside of options and arguments stays as it is.
        self.__dict__.update({name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a job cannot be changed: {name}")


class NormalJob(Fields):
    """Reads like a `JobSpec`; `document` is what it was made from."""

    document: Mapping[str, Any]

    def __init__(self, document: Mapping[str, Any]) -> None:
        sections = {name: Fields(document[name]) for name in document.keys() & _SECTIONS}
        sections["workers"] = _workers(document["workers"])
        super().__init__({**document, **sections, "pipeline": [_stage(stage) for stage in document["pipeline"]], "document": document})


def normal_job(document: Mapping[str, Any]) -> JobSpec:
    """Return the job of a document that `JobSpec.model_dump_json` or `antinfer.spec.canonical.document_json` wrote, unchecked.

    Raises `ValueError`, `KeyError` or `TypeError` on anything else; `antinfer.spec.canonical.from_document` is for documents of people.
    """
    return cast("JobSpec", NormalJob(document))


def all_stages(stages: Iterable[StageSpec]) -> Iterator[StageSpec]:
    """Yield `stages` in order, those inside of branches behind their `parallel`."""
    for stage in stages:
        yield stage
        for branch in stage.parallel.values():
            yield from all_stages(branch)


def _workers(document: Mapping[str, Any]) -> Fields:
    budget, classes = document["budget"], document["classes"]
    shape = {"budget": None if budget is None else Fields(budget), "classes": Fields({name: Fields(one) for name, one in classes.items()})}
    return Fields({**document, **shape})


def _stage(document: Mapping[str, Any]) -> Fields:
    (kind,) = document.keys() & STAGE_KINDS
    value = document[kind]
    shape: dict[str, Any] = {"target": "", "into": "", "parallel": {}}
    if kind == "gather":
        shape["into"] = value["into"]
    elif kind == "parallel":
        shape["parallel"] = {name: tuple(map(_stage, steps)) for name, steps in value.items()}
    else:
        shape["target"] = value
    rest = {name: value for name, value in document.items() if name != kind}
    if rest["bucket_by"] is not None:
        rest["bucket_by"] = Fields(rest["bucket_by"])
    return Fields({"kind": kind, **shape, **rest})

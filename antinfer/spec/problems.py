"""Turns pydantic's complaints about a job into one readable line per problem."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from antinfer.errors import JobFileError
from antinfer.spec.forms import Form
from antinfer.spec.near import did_you_mean
from antinfer.spec.normal import STAGE_KINDS
from antinfer.spec.schema import JobSpec, StageSpec
from antinfer.spec.yamlfile import Lines, Location

_TYPE_WORDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUND_WORDS = {"greater_than": ("gt", "above"), "greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
_LONGEST_VALUE = 80


def job_file_error(error: ValidationError, lines: Lines, at: Location = ()) -> JobFileError:
    """Return the `JobFileError` that says all of `error`, one line per problem, each with file, line and field.

    Args:
        error: What validating a job, or the part of one at `at`, raised.
        lines: Where the values were written.
        at: Where the validated part stands in the job.
    """
    details = error.errors(include_url=False)
    for detail in details:
        detail["loc"] = (*at, *detail["loc"])
    texts: list[str] = []
    for detail in details:
        location = detail["loc"]
        # A list that is "too short" because its items were wrong would be a second complaint about the same thing.
        if detail["type"] == "too_short" and any(
            len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in details
        ):
            continue
        path = ".".join(map(str, location))
        text = f"{lines.place(location)}: {path + ': ' if path else ''}{_say(detail)}"
        if text not in texts:
            texts.append(text)
    return JobFileError(
        "\n".join(texts), hint="`antinfer init` writes a job file to start from; docs/reference/job-file.md lists every key."
    )


def known_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the keys that a job file may use for `model`."""
    if model is StageSpec:
        return (*STAGE_KINDS, *(name for name in StageSpec.model_fields if name not in ("kind", "target", "into", "parallel")))
    return tuple(name for name in model.model_fields if (model, name) != (JobSpec, "base_dir"))


def _say(detail: ErrorDetails) -> str:
    kind, location = detail["type"], detail["loc"]
    value = "(not shown)" if location == ("store", "url") else detail["input"]
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if kind == "missing":
        _, field_text = _field(location)
        return f"is missing ({field_text})" if field_text else "is missing"
    if kind == "extra_forbidden":
        keys = known_keys(_model_at(location[:-1]))
        return f"unknown key; allowed: {', '.join(keys)}{did_you_mean(str(location[-1]), keys)}"
    if kind == "literal_error":
        words = _literal_words(location)
        return f"must be one of {', '.join(words)}, not {_show(value)}{did_you_mean(str(value), words)}"
    if kind in _BOUND_WORDS:
        key, words_ = _BOUND_WORDS[kind]
        return f"must be {words_} {detail['ctx'][key]}, not {_show(value)}"
    if kind in _TYPE_WORDS:
        model = _model_at(location)
        keys_text = f" with the keys {', '.join(known_keys(model))}" if _is_model_location(location) else ""
        return f"must be {_TYPE_WORDS[kind]}{keys_text}, not {_show(value)}"
    if kind == "too_short":
        return "must have at least one entry"
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {_show(value)}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _descend(location: Location) -> tuple[type[BaseModel], str | None]:
    """Follow `location` through the schema; return the innermost model, and the field of it where the location ends inside a field."""
    model: type[BaseModel] = JobSpec
    field: str | None = None
    for part in location:
        inner = None if field is None else next(iter(_models(model.model_fields[field].annotation)), None)
        if inner is not None:
            # A branch of a parallel goes by its name, and then by the index of the step.
            if isinstance(part, int):
                model, field = inner, None
        elif field is None and part in model.model_fields:
            inner = next(iter(_models(model.model_fields[str(part)].annotation)), None)
            is_list = inner is StageSpec
            if inner is not None and not is_list:
                model = inner
            else:
                field = str(part)
    return model, field


def _model_at(location: Location) -> type[BaseModel]:
    return _descend(location)[0]


def _is_model_location(location: Location) -> bool:
    return _descend(location)[1] is None


def _field(location: Location) -> tuple[type[BaseModel], str]:
    """Return the model around the last part of `location`, and what its description and form say about the field."""
    model = _model_at(location[:-1])
    info = model.model_fields.get(str(location[-1]))
    if info is None:
        return model, ""
    form = next((item.text for item in info.metadata if isinstance(item, Form)), "")
    return model, (form or info.description or "").replace("`", "")


def _literal_words(location: Location) -> list[str]:
    model, field = _descend(location)
    return [str(word) for word in get_args(model.model_fields[field].annotation)] if field is not None else []

"""One written form of a job: for workers, for the output place, for telling whether a job changed.

The canonical JSON has every key, defaults filled in and keys sorted, so equal jobs give equal text however they were written. It leaves out
where the job file lies, and the store, whose URL may hold a password.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from antinfer.errors import JobFileError
from antinfer.spec.normal import NormalJob

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec

_FREE = {
    *(("name",), ("workers",), ("store",), ("base_dir",), ("commit_interval",), ("patience",), ("task",), ("tuning",)),
    ("event_log",),
    ("quarantine", "max_fraction"),
    ("quarantine", "max_rows"),
}
"""Fields that say how fast or where a job runs, not what it computes: they may differ when a job is resumed."""
_FREE_OF_STAGES = {"name", "adds", "concurrency", "workers_as", "num_gpus", "num_cpus", "gpu_share", "timeout", "max_lifetime"}
"""The same among the keys of a stage."""
_BATCHING = {"batch_size", "bucket_by", "max_tokens"}
"""Keys of a stage that are free as well, unless the job is to be reproducible."""

_CONCERNS = {
    "source": ("source", "limit", "shard"),
    "pipeline": ("pipeline", "carryover", "accumulators"),
    "sink": ("sink", "quarantine"),
}
_LONGEST_VALUE = 100

_STORAGE: Final = "storage"
"""Option of source and sink that says how their storage is reached; it may differ when a job is resumed."""
_REACHING: Final = frozenset({"endpoint_url", "endpoint_override", "region", "access_key", "secret_key", "session_token", "anonymous"})
"""The same among a source's own options."""
_SECRET: Final = re.compile(r"key|secret|token|pass|auth|credential|signature|connection_string", re.IGNORECASE)
"""Names of storage options that may let somebody in."""

Path = tuple[str, ...]


def canonical_json(spec: JobSpec) -> str:
    """Return the one JSON text of `spec`, without `base_dir` and `store`."""
    return _dumps(_without(spec, "base_dir", "store"))


def document_json(spec: JobSpec) -> str:
    """Return what a worker needs to run `spec`: the canonical JSON and `base_dir`. No secret of the store is in it."""
    return _dumps(_without(spec, "store"))


def public_document(spec: JobSpec) -> dict[str, Any]:
    """Return `document_json` as data, without credentials: for places that others can read."""
    document: dict[str, Any] = json.loads(document_json(spec))
    for options in (document["source"]["options"], document["sink"]["options"]):
        storage = options.get(_STORAGE)
        if isinstance(storage, dict):
            options[_STORAGE] = _without_secrets(storage)
        for name in [name for name in options if name in _REACHING and _SECRET.search(name)]:
            del options[name]
    return document


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_secrets(inner) for name, inner in value.items() if not _SECRET.search(name)}
    return [_without_secrets(inner) for inner in value] if isinstance(value, list) else value


def from_document(text: str) -> JobSpec:
    """Read what `document_json` or `canonical_json` wrote, or somebody by hand. Raises JobFileError when it is not a job."""
    # Imported here: a master and its workers are given jobs that were checked before.
    from pydantic import ValidationError

    from antinfer.spec.schema import JobSpec

    try:
        return JobSpec.model_validate(json.loads(text))
    except ValidationError as error:
        from antinfer.spec.problems import job_file_error
        from antinfer.spec.yamlfile import Lines

        raise job_file_error(error, Lines("job document", {})) from None
    except ValueError as error:
        raise JobFileError(f"the job document is not JSON: {error}") from error


def to_yaml(spec: JobSpec) -> str:
    """Return `spec` as a job file: absolute paths, and only the keys that differ from their defaults.

    User code is looked up beside the file, so a job whose code is named by module belongs into `base_dir`; the first line says so.
    """
    from antinfer.spec.yamlfile import write_yaml

    data = spec.model_dump(mode="json", exclude_defaults=True, exclude={"base_dir"})
    if len(spec.source.path) == 1:
        data["source"]["path"] = spec.source.path[0]
    # The kind of the output has a default, but a reader should not have to know it.
    data["sink"] = {"type": spec.sink.type, **data["sink"]}
    head = f"# user code is looked up in {spec.base_dir}\n" if spec.base_dir else ""
    return head + write_yaml(data)


def job_fingerprint(spec: JobSpec) -> dict[str, str]:
    """Return sha256 hex digests of what the job computes, by concern: ``source``, ``pipeline``, ``sink``, and ``all`` of it.

    Fields that may change when a job is resumed do not count, nor does user code (`antinfer.spec.codeprint`).
    """
    fixed = _fixed_fields(json.loads(canonical_json(spec)))
    prints = {
        concern: _sha256(_dumps(sorted([list(path), _dumps(value)] for path, value in fixed.items() if path[0] in fields)))
        for concern, fields in _CONCERNS.items()
    }
    return {**prints, "all": _sha256(_dumps(prints))}


def explain_changes(old_json: str, new_json: str) -> list[str]:
    """Say which fields that must not change differ between two jobs in canonical (or document) JSON; empty when a resume is fine."""
    old, new = _fixed_fields(json.loads(old_json)), _fixed_fields(json.loads(new_json))
    found = []
    for path in sorted(old.keys() | new.keys()):
        if _filled(old, new, path) or _filled(new, old, path):
            continue
        if (path in old) != (path in new) or old[path] != new[path]:
            before, after = (_show(fields[path]) if path in fields else "not given" for fields in (old, new))
            found.append(f"{'.'.join(path)} was {before}, is now {after}")
    return found


def _without(spec: JobSpec, *names: str) -> dict[str, Any]:
    """Return `spec` as data, less the fields `names`."""
    if isinstance(spec, NormalJob):
        return {name: value for name, value in spec.document.items() if name not in names}
    return spec.model_dump(mode="json", exclude=set(names))


def _fixed_fields(job: dict[str, Any]) -> dict[Path, Any]:
    """Flatten a job into its fields by path, without the free ones."""
    flat: dict[Path, Any] = {}
    free_of_stages = _FREE_OF_STAGES if job.get("reproducible") else _FREE_OF_STAGES | _BATCHING

    def add_stages(path: Path, stages: list[dict[str, Any]]) -> None:
        for index, stage in enumerate(stages):
            at = (*path, str(index))
            for key, value in stage.items():
                if key == "parallel":
                    for branch, inner in value.items():
                        add_stages((*at, key, branch), inner)
                elif key not in free_of_stages:
                    add((*at, key), value)

    def add(path: Path, value: Any) -> None:
        if path in _FREE:
            return
        if isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if not _is_about_reaching((*path, key))}
        if isinstance(value, dict) and (value or not path):
            for key, inner in value.items():
                add((*path, key), inner)
        elif path == ("pipeline",):
            add_stages(path, value)
        else:
            flat[path] = value

    add((), job)
    return flat


def _is_about_reaching(path: Path) -> bool:
    return len(path) == 3 and path[0] in ("source", "sink") and path[1] == "options" and (path[2] == _STORAGE or path[2] in _REACHING)


def _filled(empty: dict[Path, Any], filled: dict[Path, Any], path: Path) -> bool:
    """Tell whether a mapping that one job leaves empty has entries in the other: those are the change to speak of."""
    return empty.get(path) == {} and any(len(other) > len(path) and other[: len(path)] == path for other in filled)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""The Python form of the job file, in the words of Ray Data.

Nothing here reads data: a `Dataset` collects what a job file would say, and `write_parquet` and its siblings turn that into a `Job`.
"""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError

from antinfer.errors import UsageError
from antinfer.spec.job import Job
from antinfer.spec.load import absolute_path
from antinfer.spec.problems import job_file_error
from antinfer.spec.references import folder_of, reference_of
from antinfer.spec.schema import JobSpec, SinkType, SourceSpec, SourceType, StageSpec
from antinfer.spec.usercode import FILE_PREFIX, split_reference
from antinfer.spec.yamlfile import Lines

UserCode = Callable[..., Any] | str
"""A function, a class, or ``"module:name"``."""
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Concurrency = int | tuple[int, int] | Literal["auto"] | None
BatchSize = int | Literal["auto"] | None
Timeout = float | str
Lifetime = int | str
Bucket = str | tuple[str, Sequence[int]] | None
Branch = Callable[["Dataset"], "Dataset"]
BatchFormat = Literal["numpy", "arrow", "pandas", "torch"]

_NOWHERE = Lines("job", {})
_REST: dict[str, Any] = {"pipeline": [{"map_batches": "any:code"}], "sink": {"path": "anywhere"}}
"""Completes a job of which one setting is checked."""


@dataclass(frozen=True)
class Dataset:
    """A source and the steps that its rows go through. Immutable: every method returns a new one.

    All methods raise `UsageError` (mostly its subclass `JobFileError`) for a value that is not allowed and `UserCodeError` for user code
    that a worker could not import, at the call that is wrong.
    """

    _source: SourceSpec
    _stages: tuple[StageSpec, ...] = ()
    _settings: Mapping[str, Any] = field(default_factory=dict)
    _folders: Mapping[str, str | None] = field(default_factory=dict)
    """Folder from which each reference to user code can be imported."""

    def map_batches(
        self,
        fn: UserCode,
        *,
        batch_size: BatchSize = "auto",
        batch_format: BatchFormat = "numpy",
        concurrency: Concurrency = "auto",
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        workers_as: Literal["auto", "threads", "processes"] = "auto",
        columns: Sequence[str] | None = None,
        when: str = "",
        adds: Sequence[str] = (),
        bucket_by: Bucket = None,
        max_tokens: int | None = None,
        on_gpu: UserCode | None = None,
        on_gpu_kwargs: Mapping[str, Any] | None = None,
        gpu_share: float | Literal["auto"] = "auto",
        timeout: Timeout = "auto",
        max_lifetime: Lifetime = "off",
        name: str = "",
    ) -> Dataset:
        """Call `fn` with batches; it returns a batch with as many rows. It is given only `columns`, where they are named.

        A function is called with the batch and `fn_kwargs`. A class becomes a `predict` stage: it is built once in a process of its own,
        with `fn_constructor_kwargs`, and its instance is called with batches; it may have ``setup(self)`` and ``teardown(self)``, called in
        that process before the first and after the last batch.

        `when`, `adds`, `bucket_by` and `max_tokens` are as for `predict`. `on_gpu`, a class built with `on_gpu_kwargs`, does the same on a
        GPU, inside of the predictor right behind, for at most `gpu_share` of the rows.
        """
        batching: dict[str, Any] = {"columns": columns, "when": when, "adds": list(adds), "bucket_by": _bucket(bucket_by)}
        batching |= {"max_tokens": max_tokens, "timeout": timeout, "max_lifetime": max_lifetime}
        if inspect.isclass(fn):
            if fn_kwargs:
                raise UsageError(
                    "map_batches: a class takes fn_constructor_kwargs, not fn_kwargs", hint="Keep what a call needs in the instance."
                )
            if on_gpu is not None:
                raise UsageError("map_batches: on_gpu goes with a function, not with a class, which becomes a predictor itself")
            keys = {"args": fn_constructor_kwargs, "num_gpus": num_gpus, "num_cpus": num_cpus, **batching}
            return self._stage("predict", fn, batch_size=batch_size, batch_format=batch_format, concurrency=concurrency, name=name, **keys)
        if fn_constructor_kwargs and not isinstance(fn, str):
            raise UsageError("map_batches: a function takes fn_kwargs, not fn_constructor_kwargs")
        args = fn_kwargs or fn_constructor_kwargs
        keys = {"workers_as": workers_as, "args": args, "num_gpus": num_gpus, "num_cpus": num_cpus, **batching}
        folders: dict[str, str | None] = {}
        if on_gpu is not None:
            reference, folder = _named(on_gpu)
            folders[reference] = folder
            keys |= {"on_gpu": reference, "on_gpu_args": on_gpu_kwargs, "gpu_share": gpu_share}
        return replace(self, _folders={**self._folders, **folders})._stage(
            "map_batches", fn, batch_size=batch_size, batch_format=batch_format, concurrency=concurrency, name=name, **keys
        )

    def predict(
        self,
        cls: UserCode,
        *,
        num_gpus: float | None = None,
        num_cpus: float | None = None,
        batch_size: BatchSize = "auto",
        batch_format: BatchFormat = "numpy",
        concurrency: Concurrency = "auto",
        args: Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
        when: str = "",
        adds: Sequence[str] = (),
        bucket_by: Bucket = None,
        max_tokens: int | None = None,
        timeout: Timeout = "auto",
        max_lifetime: Lifetime = "off",
        name: str = "",
    ) -> Dataset:
        """Run a model: `cls` is built once per process, with `args`, and its instance is called with batches.

        Only `columns`, where they are named, are sent to it. `num_gpus` is the share of a GPU that one process owns: 0.25 puts four on
        a device. ``setup(self)`` and ``teardown(self)``, where the class has them, are called in the process before the first and after
        the last batch.

        With `when`, only rows for which that boolean column is true go through the model; the others get nulls in its columns (`adds`),
        or keep what they have in columns of the same name. `bucket_by` (a column, or a pair of column and edges) fills batches with rows
        of like length, and `max_tokens` cuts a batch before its rows times its longest row exceed it.
        """
        if not isinstance(cls, str) and not inspect.isclass(cls):
            raise UsageError("predict needs a class, which is built once per process", hint="For a function use map_batches.")
        batching: dict[str, Any] = {"columns": columns, "when": when, "adds": list(adds), "bucket_by": _bucket(bucket_by)}
        batching |= {"max_tokens": max_tokens, "timeout": timeout, "max_lifetime": max_lifetime}
        keys = {"args": args, "num_gpus": num_gpus, "num_cpus": num_cpus, **batching}
        return self._stage("predict", cls, batch_size=batch_size, batch_format=batch_format, concurrency=concurrency, name=name, **keys)

    def flat_map(
        self,
        fn: UserCode,
        *,
        columns: Sequence[str] | None = None,
        concurrency: Concurrency = "auto",
        num_cpus: float | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        workers_as: Literal["auto", "threads", "processes"] = "auto",
        timeout: Timeout = "auto",
        max_lifetime: Lifetime = "off",
        name: str = "",
    ) -> Dataset:
        """Call `fn` with one row (a dict of `columns`); it returns a list of rows, each linked to its parent, which `gather` uses."""
        keys = {"num_cpus": num_cpus, "args": fn_kwargs, "workers_as": workers_as, "columns": columns}
        keys |= {"timeout": timeout, "max_lifetime": max_lifetime}
        return self._stage("flat_map", fn, concurrency=concurrency, name=name, **keys)

    def filter(
        self,
        fn: UserCode,
        *,
        columns: Sequence[str] | None = None,
        concurrency: Concurrency = "auto",
        num_cpus: float | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        workers_as: Literal["auto", "threads", "processes"] = "auto",
        when: str = "",
        timeout: Timeout = "auto",
        max_lifetime: Lifetime = "off",
        name: str = "",
    ) -> Dataset:
        """Keep the rows (dicts of `columns`) for which `fn` returns true; with `when`, rows where that is not true stay unasked."""
        keys = {"num_cpus": num_cpus, "args": fn_kwargs, "workers_as": workers_as, "columns": columns, "when": when}
        keys |= {"timeout": timeout, "max_lifetime": max_lifetime}
        return self._stage("filter", fn, concurrency=concurrency, name=name, **keys)

    def gather(self, into: str, *, name: str = "") -> Dataset:
        """Close the last `flat_map`: one row per parent again, with its children as a list in column `into`."""
        return self._add({"gather": {"into": into}, "name": name})

    def parallel(
        self,
        branches: Mapping[str, Branch] | None = None,
        /,
        *,
        when: str = "",
        adds: Sequence[str] = (),
        name: str = "",
        **named: Branch,
    ) -> Dataset:
        """Let all branches see the same rows, and put their columns side by side.

        Args:
            branches: Steps by name, for names that are no identifiers, or that this method uses itself.
            when: Boolean column: rows for which it is not true skip all branches, and keep what they came with.
            adds: Columns that the branches add; needed only with `when`, see the job file.
            name: Name of the step.
            named: Steps by name: each takes the rows and returns them with steps added, such as
                ``faces=lambda rows: rows.predict(Detector)``.
        """
        steps: dict[str, list[StageSpec]] = {}
        folders = dict(self._folders)
        for branch, build in {**(branches or {}), **named}.items():
            made = build(replace(self, _stages=()))
            if not isinstance(made, Dataset) or made._settings != self._settings or made._source is not self._source:
                raise UsageError(
                    f"parallel: branch {branch!r} must return the rows it got with steps added",
                    hint="Settings such as carryover belong behind the parallel.",
                )
            steps[branch] = list(made._stages)
            folders |= made._folders
        return replace(self, _folders=folders)._add({"parallel": steps, "when": when, "adds": list(adds), "name": name})

    def reproducible(self) -> Dataset:
        """Cut batches at fixed places of each shard, so that every run calls the models with the same batches."""
        return self._set("reproducible", True)

    def tuning(self, mode: Literal["auto", "off"]) -> Dataset:
        """Let the worker set how many copies of each stage run by what it measures (``"auto"``), or not."""
        return self._set("tuning", mode)

    def event_log(self, level: Literal["full", "story", "off"]) -> Dataset:
        """Say what the master writes down beside the output: all it was told, what happened to each range, or nothing."""
        return self._set("event_log", level)

    def carryover(self, *columns: str) -> Dataset:
        """Let source columns skip the pipeline and join them back to its result untouched; ``"*"`` stands for all."""
        return self._set("carryover", list(columns))

    def accumulate(self, name: str, *, type: UserCode, **options: Any) -> Dataset:
        """Add a metric over the results: `type` is a known one (``"auroc"``) or your own class; `options` are its settings."""
        reference, folder = _named(type)
        accumulators = {**self._settings.get("accumulators", {}), name: {"type": reference, **options}}
        return replace(self._set("accumulators", accumulators), _folders={**self._folders, reference: folder})

    def quarantine(
        self, *, max_fraction: float | None = None, max_rows: int | None = None, keep_columns: Sequence[str] | None = None
    ) -> Dataset:
        """Say what share of rows, or how many, may be given up, and which source columns are written beside their errors."""
        return self._set_keys("quarantine", max_fraction=max_fraction, max_rows=max_rows, keep_columns=keep_columns)

    def shard(self, *, rows: int | Literal["auto"] | None = None, bytes: int | str | None = None) -> Dataset:
        """Say how the input is cut: by rows, or by input bytes (``"256MB"``, ``"auto"``)."""
        return self._set_keys("shard", rows=rows, bytes=bytes)

    def task(self, *, rows: int | Literal["auto"]) -> Dataset:
        """Say how many rows one lease covers."""
        return self._set_keys("task", rows=rows)

    def commit_interval(self, interval: float | str) -> Dataset:
        """Set the longest time between two commits of a worker: seconds, ``"30s"``, or ``"auto"``."""
        return self._set("commit_interval", interval)

    def patience(self, duration: float | str) -> Dataset:
        """Set how long storage may be away or full before the job stops: seconds, or ``"10m"``."""
        return self._set("patience", duration)

    def workers(
        self,
        *,
        min: int | None = None,
        max: int | None = None,
        on_demand: float | None = None,
        deadline: float | str | None = None,
        budget: Mapping[str, float] | None = None,
        surge: int | None = None,
        classes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Dataset:
        """Say how many workers the job may have, on what kind of nodes, and what decides how many it asks for.

        Args:
            min: Fewest workers.
            max: Most workers.
            on_demand: Share of them on nodes that are not preemptible.
            deadline: Time in which the job should end: seconds, or ``"6h"``.
            budget: What it may use up: ``{"gpu_hours": 40}`` or ``{"money": 250}``.
            surge: Workers on their way out that may be there beside `max`.
            classes: What one worker has and costs, by kind: ``{"preemptible": {"price": 1.1, "memory": "16GiB"}}``.
        """
        given = {"min": min, "max": max, "on_demand": on_demand, "deadline": deadline, "budget": budget, "surge": surge, "classes": classes}
        return self._set_keys("workers", **given)

    def store(self, url: str, *, durability: Literal["auto", "always", "waitaof", "publish"] = "auto") -> Dataset:
        """Use a Redis or Valkey server by URL instead of one of our own."""
        return self._set_keys("store", url=url, durability=durability)

    def limit(self, rows: int) -> Dataset:
        """Process only about the first `rows` rows of the input."""
        return self._set("limit", rows)

    def write_parquet(self, path: str | os.PathLike[str], *, name: str = "", row_ids: bool = False, **options: Any) -> Job:
        """Return the job that writes Parquet files into the folder `path`.

        Args:
            path: The output place; its URI is the job's identity.
            name: Name of the job; not given: the last part of `path`.
            row_ids: Also write each row's identity.
            options: Options of the format or the file system.
        """
        return self._write("parquet", path, name, row_ids=row_ids, options=options)

    def write_jsonl(self, path: str | os.PathLike[str], *, name: str = "", row_ids: bool = False, **options: Any) -> Job:
        """Return the job that writes JSON Lines files; as `write_parquet`."""
        return self._write("jsonl", path, name, row_ids=row_ids, options=options)

    def write_arrow(self, path: str | os.PathLike[str], *, name: str = "", row_ids: bool = False, **options: Any) -> Job:
        """Return the job that writes Arrow IPC files; as `write_parquet`."""
        return self._write("arrow", path, name, row_ids=row_ids, options=options)

    def _stage(self, kind: str, target: UserCode, **keys: Any) -> Dataset:
        reference, folder = _named(target)
        given = {key: value for key, value in keys.items() if value is not None}
        return replace(self._add({kind: reference, **given}), _folders={**self._folders, reference: folder})

    def _add(self, stage: dict[str, Any]) -> Dataset:
        try:
            return replace(self, _stages=(*self._stages, StageSpec.model_validate(stage)))
        except ValidationError as error:
            raise job_file_error(error, _NOWHERE, ("pipeline", len(self._stages))) from None

    def _set(self, key: str, value: Any) -> Dataset:
        """Set one key of the job and check it, so that the error points at this call."""
        try:
            JobSpec.model_validate({"source": self._source, **_REST, key: value})
        except ValidationError as error:
            raise job_file_error(error, _NOWHERE) from None
        return replace(self, _settings={**self._settings, key: value})

    def _set_keys(self, key: str, **values: Any) -> Dataset:
        given = {name: value for name, value in values.items() if value is not None}
        return self._set(key, {**self._settings.get(key, {}), **given})

    def _write(self, kind: SinkType, path: str | os.PathLike[str], name: str, *, row_ids: bool, options: dict[str, Any]) -> Job:
        base_dir = _base_dir([folder for folder in self._folders.values() if folder is not None])
        stages = [self._findable_stage(stage, base_dir) for stage in self._stages]
        accumulators = {
            metric: {**settings, "type": self._findable(settings["type"], base_dir)}
            for metric, settings in self._settings.get("accumulators", {}).items()
        }
        sink = {"type": kind, "path": absolute_path(os.fspath(path), os.getcwd()), "row_ids": row_ids, "options": options}
        parts = {"name": name, "source": self._source, "pipeline": stages, "accumulators": accumulators, "sink": sink, "base_dir": base_dir}
        try:
            return Job(JobSpec.model_validate({**self._settings, **parts}))
        except ValidationError as error:
            raise job_file_error(error, _NOWHERE) from None

    def _findable_stage(self, stage: StageSpec, base_dir: str) -> StageSpec:
        inner = {name: tuple(self._findable_stage(each, base_dir) for each in branch) for name, branch in stage.parallel.items()}
        targets = {key: self._findable(getattr(stage, key), base_dir) for key in ("target", "on_gpu")}
        return stage.model_copy(update={**targets, "parallel": inner})

    def _findable(self, reference: str, base_dir: str) -> str:
        """Name code by its file when its folder is not where workers look: only one folder can be the job's."""
        folder = self._folders.get(reference)
        if folder in (None, base_dir) or reference.startswith(FILE_PREFIX) or folder in _installed():
            return reference
        module, attribute = split_reference(reference)
        # A module inside a package needs its package around it; such code has to be importable without us.
        file = getattr(sys.modules[module], "__file__", None) if "." not in module else None
        return reference if file is None else f"{FILE_PREFIX}{os.path.abspath(file)}:{attribute}"


def read_parquet(paths: Paths, *, columns: Sequence[str] | None = None, **options: Any) -> Dataset:
    """Start from Parquet files: paths, folders, globs or URIs. Only `columns` are read; `options` are those of the file system."""
    return _read("parquet", paths, columns, options)


def read_csv(paths: Paths, *, columns: Sequence[str] | None = None, **options: Any) -> Dataset:
    """Start from CSV files; as `read_parquet`. Options of the format, such as ``delimiter``, go into `options`."""
    return _read("csv", paths, columns, options)


def read_json(paths: Paths, *, columns: Sequence[str] | None = None, **options: Any) -> Dataset:
    """Start from JSON Lines files, one object a line; as `read_parquet`."""
    return _read("jsonl", paths, columns, options)


def read_arrow(paths: Paths, *, columns: Sequence[str] | None = None, **options: Any) -> Dataset:
    """Start from Arrow IPC files; as `read_parquet`."""
    return _read("arrow", paths, columns, options)


def read_text(paths: Paths, **options: Any) -> Dataset:
    """Start from text files: one row a line, in column ``text``."""
    return _read("text", paths, None, options)


def read_files(paths: Paths, *, columns: Sequence[str] | None = None, **options: Any) -> Dataset:
    """Start from whole files, such as images: one row a file, with columns ``path`` and ``bytes``, or one of them as `columns`."""
    return _read("files", paths, columns, options)


def _named(target: UserCode) -> tuple[str, str | None]:
    """Return the reference to user code, and the folder it can be imported from where that is known."""
    return (target, None) if isinstance(target, str) else (reference_of(target), folder_of(target))


def _bucket(given: Bucket) -> dict[str, Any] | None:
    if given is None:
        return None
    column, edges = (given, ()) if isinstance(given, str) else given
    return {"column": column, "edges": list(edges)}


def _read(kind: SourceType, paths: Paths, columns: Sequence[str] | None, options: dict[str, Any]) -> Dataset:
    each = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    absolute = [absolute_path(os.fspath(path), os.getcwd()) for path in each]
    data = {"type": kind, "path": absolute, "columns": columns, "options": options}
    try:
        return Dataset(SourceSpec.model_validate(data))
    except ValidationError as error:
        raise job_file_error(error, _NOWHERE, ("source",)) from None


def _base_dir(folders: list[str]) -> str:
    """Choose the folder where workers look for user code: the script's, if any code is there, else the first that holds some."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    default = os.path.dirname(os.path.abspath(script)) if script is not None else os.getcwd()
    own = [folder for folder in folders if folder not in _installed()]
    return default if default in own or not own else own[0]


def _installed() -> set[str]:
    return {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}

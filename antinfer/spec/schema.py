"""The job file as values: one schema for YAML and Python, the text behind every field of the reference page included.

Models are frozen and know no default that depends on the machine, so a job means the same wherever it is read. Relative paths are made
absolute by the loader (`antinfer.spec.load`), and `antinfer.spec.problems` turns pydantic's complaints into `JobFileError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from antinfer.spec import forms
from antinfer.spec.near import did_you_mean
from antinfer.spec.normal import STAGE_KINDS, StageKind

SourceType = Literal["parquet", "csv", "jsonl", "arrow", "text", "files"]
SinkType = Literal["parquet", "jsonl", "arrow"]
STAGE_MEANINGS: dict[StageKind, str] = {
    "map_batches": "a function, or a class that is built once per copy: a batch in, a batch with as many rows out",
    "predict": "a class that holds a model, built once in a process of its own that owns a share of a GPU: as `map_batches`",
    "flat_map": "a function or class: one row (`dict`) in, a list of rows out, also none; the link to the parent row is kept",
    "filter": "a function or class: one row (`dict`) in, true to keep it",
    "gather": "closes the `flat_map` before it: one row per parent again, its children as a list in the column `into`",
}
"""What each kind of stage calls. A class may have ``setup(self)`` and ``teardown(self)``: before the first and after the last batch."""
ACCUMULATOR_TYPES = ("count", "mean", "histogram", "auroc", "cross_entropy", "confusion_matrix")
"""Accumulators by name; a user's own is named ``module:Class``."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False, ser_json_inf_nan="constants")


class SourceSpec(_Model):
    """Where the rows come from."""

    type: SourceType = Field(
        description="Format of the input. `files`: one row a file, with columns `path` and `bytes`; `text`: one row a line, column `text`.",
    )
    path: forms.Paths = Field(
        description="File, folder or glob; local, `s3://`, `gs://`, `hdfs://` or any fsspec URI. Relative to the job file.",
    )
    columns: forms.OptionalColumns = Field(default=None, description="Columns to read; the others are never decoded. Not given: all.")
    options: forms.JsonDict = Field(
        default_factory=dict,
        description="Options of the format or the file system, such as `delimiter` for csv.",
    )


class StageSpec(_Model):
    """One step of the pipeline. In a job file the step is named by its kind: ``predict: module:Class`` beside the keys below."""

    kind: StageKind = Field(description="What the step does.")
    target: str = Field(default="", description="User code as `module:name`, relative to the job file's folder; empty for `gather`.")
    into: str = Field(default="", description="For `gather`: column that receives the list of a parent's child rows.")
    name: str = Field(default="", description="Name in metrics and messages. Not given: made from the user code's name.")
    concurrency: forms.Concurrency = Field(
        default="auto",
        description="How many run at once on one worker; `auto` adapts to what is slowest.",
    )
    workers_as: Literal["auto", "threads", "processes"] = Field(
        default="auto",
        description="What runs the copies of a map_batches, flat_map or filter: `processes` for functions that hold the GIL. "
        "A predictor is always a process.",
    )
    num_gpus: float = Field(
        default=0.0,
        ge=0,
        description="Share of a GPU for one predictor: 0.25 puts four on a device, 2 gives two devices to one.",
    )
    num_cpus: float = Field(default=1.0, gt=0, description="CPU cores that one copy keeps busy.")
    batch_size: forms.AutoCount = Field(default="auto", description="Rows in one call; `auto` measures what the stage likes best.")
    columns: forms.OptionalColumns = Field(
        default=None,
        description="Input columns of the call; the others are not even sent to a predictor. Not given: all that there are at this point.",
    )
    batch_format: Literal["numpy", "arrow", "pandas", "torch"] = Field(
        default="numpy",
        description="What user code gets: `dict[str, numpy.ndarray]`, `pyarrow.RecordBatch`, `pandas.DataFrame` or `dict[str, Tensor]`.",
    )
    args: forms.JsonDict = Field(
        default_factory=dict,
        description="Keyword arguments for the class's constructor, or for the function beside its batch.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_file_form(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "kind" in data:
            return data
        found = [kind for kind in STAGE_KINDS if kind in data]
        if len(found) != 1:
            raise ValueError(_kind_problem(found, data))
        rest = {key: value for key, value in data.items() if key != found[0]}
        for key in ("target", "into"):
            if key in rest:
                raise ValueError(
                    f"{key!r} is not a key of a stage; write {found[0]}: {'{into: column}' if found[0] == 'gather' else 'module:name'}"
                )
        value = data[found[0]]
        if found[0] == "gather":
            if not isinstance(value, Mapping) or set(value) != {"into"} or not isinstance(value["into"], str):
                raise ValueError(f"gather must be written as gather: {{into: column}}, not {value!r}")
            return {"kind": "gather", "into": value["into"], **rest}
        if not isinstance(value, str):
            raise ValueError(f"{found[0]} must name user code as module:name, not {value!r}")
        return {"kind": found[0], "target": value, **rest}

    @model_validator(mode="after")
    def _check(self) -> StageSpec:
        if self.kind == "gather":
            extra = sorted(self.model_fields_set - {"kind", "into", "name", "target"} - _at_default(self))
            if self.target or not self.into or extra:
                raise ValueError("gather takes only into (a column name) and name" + (f", not {', '.join(extra)}" if extra else ""))
            return self
        module, _, attribute = self.target.rpartition(":")
        if not module or not attribute or self.into:
            raise ValueError(f"{self.kind} must name user code as module:name, such as steps:decode, not {self.target!r}")
        if self.kind == "predict" and self.workers_as == "threads":
            raise ValueError("workers_as: a predictor is always a process; leave workers_as out or move the stage to map_batches")
        if self.kind != "predict" and self.num_gpus:
            raise ValueError(f"num_gpus: only predict stages own GPUs; write predict: {self.target} instead of {self.kind}")
        return self

    @model_serializer(mode="wrap")
    def _to_file_form(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        rest = {key: value for key, value in handler(self).items() if key not in ("kind", "target", "into")}
        return {self.kind: {"into": self.into} if self.kind == "gather" else self.target, **rest}


class SinkSpec(_Model):
    """Where results go; the URI of the output place is the job's identity."""

    type: SinkType = Field(default="parquet", description="Format of the output.")
    path: str = Field(min_length=1, description="Folder of the output: local path or URI. Relative to the job file.")
    row_ids: bool = Field(default=False, description="Also write each row's identity: columns `_shard` and `_offset`.")
    options: forms.JsonDict = Field(
        default_factory=dict,
        description="Options of the format or the file system, such as `compression` for parquet.",
    )


class QuarantineSpec(_Model):
    """What to do with rows that no stage can process."""

    max_fraction: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of rows that may be given up before the job fails; 0: the first bad row fails it.",
    )
    keep_columns: forms.Columns = Field(default=(), description="Source columns written beside the error of a quarantined row.")


class ShardSpec(_Model):
    """How the input is cut; frozen with the plan."""

    rows: forms.AutoCount = Field(default="auto", description="Rows in one shard, where the format knows them; `auto`: cut by `bytes`.")
    bytes: forms.AutoSize = Field(
        default="auto",
        description="Input bytes in one shard, about; `auto`: at most 256 MiB, less where that leaves workers without any.",
    )


class TaskSpec(_Model):
    """What one lease covers."""

    rows: forms.AutoCount = Field(default="auto", description="Rows in one task; `auto`: from the measured speed.")


class WorkersSpec(_Model):
    """How many workers, and on what kind of node."""

    min: int = Field(default=1, ge=0, description="Fewest workers.")
    max: int | None = Field(default=None, ge=1, description="Most workers. Not given: the launcher decides; one on a single machine.")
    on_demand: float = Field(default=0.0, ge=0, le=1, description="Share of workers on nodes that are not preemptible.")
    deadline: forms.OptionalDuration = Field(
        default=None,
        description="Time in which the job should end; sets how many workers are asked for.",
    )

    @model_validator(mode="after")
    def _check(self) -> WorkersSpec:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max ({self.max}) must not be below min ({self.min})")
        return self


class StoreSpec(_Model):
    """The Redis or Valkey server that holds what is open."""

    url: forms.StoreUrl = Field(
        default="",
        repr=False,
        description="Server to use. Not given: a Valkey server of our own is started beside the master.",
    )
    durability: Literal["auto", "always", "waitaof", "publish"] = Field(
        default="auto",
        description="When a commit counts as durable: `always` (the server syncs every write), `waitaof` (we wait for its sync), "
        "`publish` (only once the output has it). `auto`: the best that the server offers.",
    )


class JobSpec(_Model):
    """One job: a data set through one pipeline into one output place."""

    name: str = Field(default="", description="Name of the job in messages and metrics. Not given: the last part of the sink's path.")
    source: SourceSpec = Field(description="Where the rows come from.")
    pipeline: tuple[StageSpec, ...] = Field(min_length=1, description="The steps, in order.")
    carryover: forms.ColumnsOrStar = Field(
        default=(),
        description="Source columns that skip the pipeline and are joined back to its result untouched. "
        "Not given: only what the pipeline returns is written.",
    )
    accumulators: dict[str, forms.JsonDict] = Field(
        default_factory=dict,
        description="Metrics over the results, by name; each has a `type` ("
        + ", ".join(f"`{name}`" for name in ACCUMULATOR_TYPES)
        + ", or your own as `module:Class`) and its options.",
    )
    sink: SinkSpec = Field(description="Where results go.")
    quarantine: QuarantineSpec = Field(default_factory=QuarantineSpec, description="What to do with bad rows.")
    shard: ShardSpec = Field(default_factory=ShardSpec, description="How the input is cut; frozen with the plan.")
    task: TaskSpec = Field(default_factory=TaskSpec, description="What one lease covers.")
    commit_interval: forms.AutoDuration = Field(
        default="auto",
        description="Longest time between two commits of a worker; the most work that a preemption can cost.",
    )
    workers: WorkersSpec = Field(default_factory=WorkersSpec, description="How many workers, and on what kind of node.")
    store: StoreSpec = Field(default_factory=StoreSpec, description="The Redis or Valkey server that holds what is open.")
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Process only about the first so many rows of the input; for trying a job out.",
    )
    base_dir: str = Field(
        default="",
        description="Folder of the job file, where user code is looked up. Set by the loader, never written in a job file.",
    )

    @field_validator("pipeline", mode="after")
    @classmethod
    def _name_stages(cls, stages: tuple[StageSpec, ...]) -> tuple[StageSpec, ...]:
        taken = [stage.name for stage in stages if stage.name]
        twice = sorted({name for name in taken if taken.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are named {twice[0]!r}; stage names must differ")
        named = []
        for stage in stages:
            if not stage.name:
                stem = stage.target.rpartition(":")[2].rpartition(".")[2] or stage.kind
                name = next(n for n in (stem, *(f"{stem}-{i}" for i in range(2, len(stages) + 2))) if n not in taken)
                taken.append(name)
                stage = stage.model_copy(update={"name": name})
            named.append(stage)
        return tuple(named)

    @field_validator("pipeline", mode="after")
    @classmethod
    def _gather_has_parent(cls, stages: tuple[StageSpec, ...]) -> tuple[StageSpec, ...]:
        depth = 0
        for index, stage in enumerate(stages):
            depth += {"flat_map": 1, "gather": -1}.get(stage.kind, 0)
            if depth < 0:
                raise ValueError(f"stage {index} gathers what no flat_map before it has spread out")
        return stages

    @field_validator("accumulators", mode="after")
    @classmethod
    def _accumulator_types(cls, value: dict[str, dict[str, JsonValue]]) -> dict[str, dict[str, JsonValue]]:
        for name, options in value.items():
            kind = options.get("type")
            if not isinstance(kind, str):
                raise ValueError(f"{name}: type is missing; allowed: {', '.join(ACCUMULATOR_TYPES)}, or your own as module:Class")
            if kind not in ACCUMULATOR_TYPES and ":" not in kind:
                raise ValueError(
                    f"{name}.type: {kind!r} is not one of {', '.join(ACCUMULATOR_TYPES)}, or your own as module:Class"
                    + did_you_mean(kind, ACCUMULATOR_TYPES)
                )
        return value

    @model_validator(mode="after")
    def _check(self) -> JobSpec:
        columns = self.source.columns
        for field, wanted in (("carryover", self.carryover), ("quarantine.keep_columns", self.quarantine.keep_columns)):
            missing = [name for name in wanted if columns is not None and wanted != "*" and name not in columns]
            if missing and columns is not None:
                raise ValueError(
                    f"{field}: {missing[0]!r} is not among source.columns ({', '.join(columns)})" + did_you_mean(missing[0], columns)
                )
        if not self.name:
            # Frozen for users; this fills the default in before anybody sees the value.
            object.__setattr__(self, "name", self.sink.path.rstrip("/").rpartition("/")[2] or "job")
        return self


def _kind_problem(found: list[StageKind], data: Mapping[str, Any]) -> str:
    allowed = ", ".join(STAGE_KINDS)
    if found:
        return f"a stage is exactly one of {allowed}; this one is {' and '.join(found)}"
    stage_keys = set(StageSpec.model_fields) | {"kind", "target", "into"}
    unknown = [str(key) for key in data if key not in stage_keys]
    hint = next((text for text in (did_you_mean(key, STAGE_KINDS) for key in unknown) if text), "")
    return f"a stage needs one of {allowed}; this one has only {', '.join(map(str, data)) or 'nothing'}{hint}"


def _at_default(stage: StageSpec) -> set[str]:
    return {key for key, field in StageSpec.model_fields.items() if getattr(stage, key) == field.get_default(call_default_factory=True)}

"""The job file as values: one schema for YAML and Python, the text behind every field of the reference page included.

Models are frozen and know no default that depends on the machine, so a job means the same wherever it is read. Relative paths are made
absolute by the loader (`antinfer.spec.load`), and `antinfer.spec.problems` turns pydantic's complaints into `JobFileError`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from antinfer.spec import chains, forms
from antinfer.spec.near import did_you_mean
from antinfer.spec.stages import STAGE_MEANINGS, BucketSpec, Model, StageSpec

__all__ = ["ACCUMULATOR_TYPES", "STAGE_MEANINGS", "BucketSpec", "JobSpec", "StageSpec"]

SourceType = Literal["parquet", "csv", "jsonl", "arrow", "text", "files"]
SinkType = Literal["parquet", "jsonl", "arrow"]
ACCUMULATOR_TYPES = ("count", "mean", "histogram", "auroc", "cross_entropy", "confusion_matrix")
"""Accumulators by name; a user's own is named ``module:Class``."""


class SourceSpec(Model):
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


class SinkSpec(Model):
    """Where results go; the URI of the output place is the job's identity."""

    type: SinkType = Field(default="parquet", description="Format of the output.")
    path: str = Field(min_length=1, description="Folder of the output: local path or URI. Relative to the job file.")
    row_ids: bool = Field(default=False, description="Also write each row's identity: columns `_shard` and `_offset`.")
    options: forms.JsonDict = Field(
        default_factory=dict,
        description="Options of the format or the file system, such as `compression` for parquet.",
    )


class QuarantineSpec(Model):
    """What to do with rows that no stage can process."""

    max_fraction: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of rows that may be given up before the job fails; 0: the first bad row fails it.",
    )
    max_rows: int | None = Field(
        default=None,
        ge=0,
        description="Number of rows that may be given up before the job fails, beside the share. Not given: the share alone counts.",
    )
    keep_columns: forms.Columns = Field(default=(), description="Source columns written beside the error of a quarantined row.")


class ShardSpec(Model):
    """How the input is cut; frozen with the plan."""

    rows: forms.AutoCount = Field(default="auto", description="Rows in one shard, where the format knows them; `auto`: cut by `bytes`.")
    bytes: forms.AutoSize = Field(
        default="auto",
        description="Input bytes in one shard, about; `auto`: at most 256 MiB, less where that leaves workers without any.",
    )


class TaskSpec(Model):
    """What one lease covers."""

    rows: forms.AutoCount = Field(default="auto", description="Rows in one task; `auto`: from the measured speed.")


class BudgetSpec(Model):
    """What a job may use up; then its workers leave in order and it stops, to be resumed with more."""

    gpu_hours: float | None = Field(default=None, gt=0, description="GPUs times hours, from the start of each worker to its end.")
    money: float | None = Field(default=None, gt=0, description="Sum of the prices of all workers, in the currency of `price`.")

    @model_validator(mode="after")
    def _check(self) -> BudgetSpec:
        if self.gpu_hours is None and self.money is None:
            raise ValueError("needs gpu_hours, money or both")
        return self


class WorkerClassSpec(Model):
    """What one worker of a kind has, and costs."""

    gpus: float = Field(default=1.0, ge=0, description="GPUs of one worker; what `budget.gpu_hours` is counted by.")
    price: float | None = Field(default=None, ge=0, description="Money for one worker for an hour; what `budget.money` is counted by.")
    memory: forms.OptionalSize = Field(default=None, description="Memory of one worker. Not given: as its template says.")
    max_memory: forms.OptionalSize = Field(
        default=None,
        description="How far that is raised, by half each time, after the system ran out of memory. Not given: not at all.",
    )

    @model_validator(mode="after")
    def _check(self) -> WorkerClassSpec:
        if self.max_memory is not None and self.memory is None:
            raise ValueError("max_memory needs memory, from which it is raised")
        if self.max_memory is not None and self.memory is not None and self.max_memory < self.memory:
            raise ValueError(f"max_memory ({self.max_memory}) must not be below memory ({self.memory})")
        return self


class WorkerClassesSpec(Model):
    """The two kinds of workers."""

    protected: WorkerClassSpec = Field(default_factory=WorkerClassSpec, description="Those on nodes that are not preemptible.")
    preemptible: WorkerClassSpec = Field(default_factory=WorkerClassSpec, description="All others; the same keys.")


class WorkersSpec(Model):
    """How many workers, and on what kind of node."""

    min: int = Field(
        default=1,
        ge=0,
        description="Fewest workers, as long as there is work for them. A job that has work always has one, unless its budget is used up.",
    )
    max: int | None = Field(default=None, ge=1, description="Most workers. Not given: the launcher decides; one on a single machine.")
    on_demand: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of workers on nodes that are not preemptible: at least that many of them, and not one more than it takes.",
    )
    deadline: forms.OptionalDuration = Field(
        default=None,
        description="Time in which the job should end; sets how many workers are asked for. "
        "Not given: as many as find a place, up to `max`.",
    )
    budget: BudgetSpec | None = Field(default=None, description="What the job may use up. Not given: any amount.")
    surge: int | None = Field(
        default=None,
        ge=0,
        description="Workers on their way out that may be there beside `max`, so that others start before they have stopped. "
        "Not given: any number.",
    )
    classes: WorkerClassesSpec = Field(default_factory=WorkerClassesSpec, description="What one worker of each kind has, and costs.")

    @model_validator(mode="after")
    def _check(self) -> WorkersSpec:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max ({self.max}) must not be below min ({self.min})")
        if self.budget is not None:
            used = {
                name: about
                for name, about in (("protected", self.classes.protected), ("preemptible", self.classes.preemptible))
                if (self.on_demand > 0 if name == "protected" else self.on_demand < 1)
            }
            unpriced = [name for name, about in used.items() if about.price is None]
            if self.budget.money is not None and unpriced:
                raise ValueError(f"budget.money needs classes.{unpriced[0]}.price, the money for one such worker for an hour")
            if self.budget.gpu_hours is not None and not any(about.gpus for about in used.values()):
                raise ValueError(f"budget.gpu_hours counts nothing, since classes.{next(iter(used))}.gpus is 0")
        return self


class StoreSpec(Model):
    """The Redis or Valkey server that holds what is open."""

    url: forms.StoreUrl = Field(
        default="",
        repr=False,
        description="Server to use. Not given: a Valkey server of our own is started beside the master.",
    )
    durability: Literal["auto", "always", "waitaof", "publish"] = Field(
        default="auto",
        description="When a commit counts as durable: `always` (the server syncs every write), `waitaof` (we wait for its sync; Redis from "
        "7.2 on, and Valkey), `publish` (only once the output has it). `auto`: the best that the server offers.",
    )


class JobSpec(Model):
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
        description="Longest time between two commits of a worker; the most work that a preemption can cost. "
        "`auto`: what wastes least at the rate at which workers are lost; seconds to begin with, longer while nobody is.",
    )
    patience: forms.Duration = Field(
        default=1800.0,
        description="How long input, output or store may be away, full, read-only or forbidden once a job has begun: nothing new is begun "
        "meanwhile, `antinfer status` says why, and the job goes on by itself. Then it stops; nothing is lost, the same command resumes.",
    )
    workers: WorkersSpec = Field(default_factory=WorkersSpec, description="How many workers, and on what kind of node.")
    store: StoreSpec = Field(default_factory=StoreSpec, description="The Redis or Valkey server that holds what is open.")
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Process only about the first so many rows of the input; for trying a job out.",
    )
    reproducible: bool = Field(
        default=False,
        description="Cut batches at fixed places of each shard, whatever the scheduling, retries and commits, so that every run calls the "
        "models with the same batches. Costs some rows computed twice where leases meet; every batch size must be a number.",
    )
    tuning: forms.Tuning = Field(
        default="auto",
        description="`auto`: the worker sets how many copies of each stage run, and batch sizes of `auto`, by what it measures; "
        "`off`: they stay as they begin.",
    )
    event_log: forms.EventLog = Field(
        default="full",
        description="What the master writes down beside the output for `antinfer story` and `antinfer events`: `full`: everything it was "
        "told, so that every decision can be replayed; `story`: what happened to each range; `off`: nothing. Results do not need it.",
    )
    base_dir: str = Field(
        default="",
        description="Folder of the job file, where user code is looked up. Set by the loader, never written in a job file.",
    )

    @field_validator("pipeline", mode="after")
    @classmethod
    def _check_pipeline(cls, stages: tuple[StageSpec, ...]) -> tuple[StageSpec, ...]:
        chains.check(stages)
        return chains.named(stages)

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
        for path in self.source.path:
            if _reads(path, self.sink.path):
                raise ValueError(f"sink.path: what is written to {self.sink.path} would be input as well, for source.path is {path}")
        if self.reproducible:
            chains.check_reproducible(self.pipeline)
        if not self.name:
            # Frozen for users; this fills the default in before anybody sees the value.
            object.__setattr__(self, "name", self.sink.path.rstrip("/").rpartition("/")[2] or "job")
        return self


def _reads(path: str, folder: str) -> bool:
    """Tell whether a source at `path` meets the files directly inside `folder`."""
    base = path
    while any(sign in base for sign in "*?["):
        base = base.rpartition("/")[0]
    is_deep = base == path or "**" in path
    return folder == base or (is_deep and folder.startswith(f"{base}/"))

"""One stage of a job file as a value, with the checks that need no other stage (`antinfer.spec.chains` has those)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from antinfer.spec import devices, forms
from antinfer.spec.near import did_you_mean
from antinfer.spec.normal import STAGE_KINDS, StageKind

STAGE_MEANINGS: dict[StageKind, str] = {
    "map_batches": "a function, or a class that is built once per copy: a batch in, a batch with as many rows out",
    "predict": "a class that holds a model, built once in a process of its own that owns a share of a GPU: as `map_batches`",
    "flat_map": "a function or class: one row (`dict`) in, a list of rows out, also none; the link to the parent row is kept",
    "filter": "a function or class: one row (`dict`) in, true to keep it",
    "gather": "closes the `flat_map` before it: one row per parent again, its children as a list in the column `into`",
    "parallel": "branches by name, each a list of steps: all get the same rows, and their columns are put side by side",
}
"""What each kind of stage calls. A class may have ``setup(self)`` and ``teardown(self)``: before the first and after the last batch."""
_SHAPE_KEYS: dict[StageKind, str] = {"gather": "into", "parallel": "parallel"}
"""Kinds that call no user code, and the field that holds the value of their key."""
_TAKES: dict[StageKind, frozenset[str]] = {
    "gather": frozenset({"kind", "into", "name", "target"}),
    "parallel": frozenset({"kind", "parallel", "name", "when", "adds", "target"}),
}
_ONLY_FOR: dict[str, tuple[StageKind, ...]] = {
    "when": ("map_batches", "predict", "filter", "parallel"),
    "bucket_by": ("map_batches", "predict"),
    "max_tokens": ("map_batches", "predict"),
    "on_gpu": ("map_batches",),
    "parallel": ("parallel",),
}
_NEEDS = {"adds": "when", "max_tokens": "bucket_by", "on_gpu_args": "on_gpu", "gpu_share": "on_gpu"}
"""Keys that mean nothing without another one."""


class Model(BaseModel):
    """What all models of the schema have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False, ser_json_inf_nan="constants")


class BucketSpec(Model):
    """Rows of like length go into one batch."""

    column: str = Field(
        min_length=1,
        description="Column that says how long a row is: its value where it holds whole numbers, else the length of its text or list.",
    )
    edges: forms.Edges = Field(
        default=(),
        description="Lengths at which buckets end, ascending: `[32, 64]` makes up to 32, 33 to 64, and longer. Not given: powers of two.",
    )


class StageSpec(Model):
    """One step of the pipeline. In a job file the step is named by its kind: ``predict: module:Class`` beside the keys below."""

    kind: StageKind = Field(description="What the step does.")
    target: str = Field(default="", description="User code as `module:name`, relative to the job file's folder; empty for `gather`.")
    into: str = Field(default="", description="For `gather`: column that receives the list of a parent's child rows.")
    parallel: dict[str, tuple[StageSpec, ...]] = Field(default_factory=dict, description="For `parallel`: the steps of each branch.")
    name: str = Field(default="", description="Name in metrics and messages. Not given: made from the user code's name.")
    when: str = Field(
        default="",
        description="Boolean column: rows for which it is true go through the step, the others (null too) skip it. All rows keep the "
        "columns they came with; those of the step are added, null where it was skipped, and replace a column of the same name where not.",
    )
    adds: forms.Columns = Field(
        default=(),
        description="Columns that a step with `when` adds. Needed only where a worker may meet no row at all that goes through it, "
        "since the columns are otherwise learnt from the first one.",
    )
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
        description="Share of a GPU for one predictor: 0.25 puts four on a device (0.01 is the least), 2 gives two devices to one.",
    )
    num_cpus: float = Field(default=1.0, gt=0, description="CPU cores that one copy keeps busy.")
    batch_size: forms.AutoCount = Field(
        default="auto",
        description="Rows in one call. `auto`: a predict measures what it likes best; the other steps take up to 4096 rows or 32 MB, "
        "whichever is less.",
    )
    timeout: forms.AutoDuration = Field(
        default="auto",
        description="Longest time that one call of the user code may take (a batch; a row for flat_map and filter). A process that takes "
        "longer is started again, and a row on which that happens again and again goes to quarantine. `auto`: many times what calls are "
        "seen to take, at least 5 s. Building the class and the first call of a process, which may compile, have more.",
    )
    max_lifetime: forms.Lifetime = Field(
        default="off",
        description="Start a process of this stage afresh after so many batches or so long, for libraries that lose memory slowly. "
        "A leak that is seen leads to the same without this key.",
    )
    bucket_by: BucketSpec | None = Field(default=None, description="Fill batches with rows of like length, from several tasks.")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Cut a batch before its rows times its longest row exceed this; needs `bucket_by`. A longer row goes alone.",
    )
    on_gpu: str = Field(
        default="",
        description="Class that does the same as this map_batches on a GPU, as `module:name`; it runs inside the process of the predict "
        "right behind, and its tensors stay on the device. Batches go to whichever of the two has room.",
    )
    on_gpu_args: forms.JsonDict = Field(default_factory=dict, description="Keyword arguments for the constructor of `on_gpu`.")
    gpu_share: forms.GpuShare = Field(
        default="auto",
        description="Share of rows that `on_gpu` does: `auto` measures with which share CPU and GPU together do the most, 0 never, "
        "1 always, between: at most so many.",
    )
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
        kind = found[0]
        rest = {key: value for key, value in data.items() if key != kind}
        for key in ("target", "into"):
            if key in rest:
                form = "{into: column}" if kind == "gather" else "module:name"
                raise ValueError(f"{key!r} is not a key of a stage; write {kind}: {form}")
        value = data[kind]
        if kind == "gather":
            if not isinstance(value, Mapping) or set(value) != {"into"} or not isinstance(value["into"], str):
                raise ValueError(f"gather must be written as gather: {{into: column}}, not {value!r}")
            return {"kind": kind, "into": value["into"], **rest}
        if kind == "parallel":
            if not isinstance(value, Mapping) or not value or not all(isinstance(name, str) and name for name in value):
                raise ValueError(f"parallel must be written as parallel: {{name: [steps], other: [steps]}}, not {value!r}")
            return {"kind": kind, "parallel": value, **rest}
        if not isinstance(value, str):
            raise ValueError(f"{kind} must name user code as module:name, not {value!r}")
        return {"kind": kind, "target": value, **rest}

    @field_validator("num_gpus", mode="after")
    @classmethod
    def _check_share(cls, value: float) -> float:
        if fault := devices.share_fault(value):
            raise ValueError(fault)
        return value

    @model_validator(mode="after")
    def _check(self) -> StageSpec:
        self._check_keys()
        if self.kind in _SHAPE_KEYS:
            return self
        for key, reference in (("", self.target), ("on_gpu: ", self.on_gpu)):
            module, _, attribute = reference.rpartition(":")
            if (not module or not attribute) and (reference or not key):
                raise ValueError(f"{key}{self.kind} must name user code as module:name, such as steps:decode, not {reference!r}")
            if module == "__main__":
                raise ValueError(f"{key}{self.kind}: __main__ is another program in a worker; name the file of {attribute}, without .py")
        if self.kind == "predict" and self.workers_as == "threads":
            raise ValueError("workers_as: a predictor is always a process; leave workers_as out or move the stage to map_batches")
        if self.kind != "predict" and self.num_gpus:
            raise ValueError(f"num_gpus: only predict stages own GPUs; write predict: {self.target} instead of {self.kind}")
        if self.on_gpu and (self.when or self.bucket_by):
            raise ValueError(f"on_gpu cannot be together with {'when' if self.when else 'bucket_by'}")
        return self

    def _check_keys(self) -> None:
        given = self.model_fields_set - _at_default(self)
        takes = _TAKES.get(self.kind)
        if takes is not None:
            extra = sorted(given - takes)
            inner = _SHAPE_KEYS[self.kind]
            if self.target or not getattr(self, inner) or extra:
                what = "into (a column name) and name" if self.kind == "gather" else "its branches, when, adds and name"
                raise ValueError(f"{self.kind} takes only {what}" + (f", not {', '.join(extra)}" if extra else ""))
            empty = [name for name, steps in self.parallel.items() if not steps]
            if empty:
                raise ValueError(f"parallel: branch {empty[0]!r} has no steps")
        elif self.into:
            raise ValueError(f"{self.kind} does not take into; only gather does")
        for key, kinds in _ONLY_FOR.items():
            if key in given and self.kind not in kinds:
                way_out = "; put the steps into one branch of a parallel, and the when there" if key == "when" else ""
                raise ValueError(f"{key}: only for {', '.join(kinds)}, not {self.kind}{way_out}")
        for key, other in _NEEDS.items():
            if key in given and not getattr(self, other):
                raise ValueError(f"{key} needs {other} beside it")

    @model_serializer(mode="wrap")
    def _to_file_form(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped = handler(self)
        rest = {key: value for key, value in dumped.items() if key not in ("kind", "target", "into", "parallel")}
        value = {"into": self.into} if self.kind == "gather" else dumped["parallel"] if self.kind == "parallel" else self.target
        return {self.kind: value, **rest}


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

"""Elastic, fault-tolerant batch inference: every input row exactly once, on machines that can vanish at any moment.

The names in `__all__` are the public API. Each is imported when it is first used, so that ``import antinfer`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antinfer.errors import (
        AntinferError,
        BadRows,
        DataError,
        ForeignOutputError,
        InfraError,
        InternalError,
        Interrupted,
        JobFileError,
        SchemaMismatchError,
        SourceError,
        UsageError,
        UserCodeError,
        UserError,
        VerifyFault,
    )
    from antinfer.metrics import Accumulator
    from antinfer.predictors import DecodeJpeg, TorchPredictor
    from antinfer.spec.dataset import (
        Dataset,
        read_arrow,
        read_csv,
        read_files,
        read_json,
        read_parquet,
        read_text,
    )
    from antinfer.spec.job import Job
    from antinfer.spec.load import load_job
    from antinfer.spec.schema import JobSpec

__all__ = [
    "read_arrow",
    "read_csv",
    "read_files",
    "read_json",
    "read_parquet",
    "read_text",
    "Dataset",
    "Job",
    "JobSpec",
    "load_job",
    "Accumulator",
    "DecodeJpeg",
    "TorchPredictor",
    "AntinferError",
    "BadRows",
    "DataError",
    "ForeignOutputError",
    "InfraError",
    "InternalError",
    "Interrupted",
    "JobFileError",
    "SchemaMismatchError",
    "SourceError",
    "UsageError",
    "UserCodeError",
    "UserError",
    "VerifyFault",
]

_HOMES = {
    "antinfer.metrics": ("Accumulator",),
    "antinfer.predictors": ("DecodeJpeg", "TorchPredictor"),
    "antinfer.spec.dataset": ("Dataset", "read_arrow", "read_csv", "read_files", "read_json", "read_parquet", "read_text"),
    "antinfer.spec.job": ("Job",),
    "antinfer.spec.load": ("load_job",),
    "antinfer.spec.schema": ("JobSpec",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("importlib.metadata").version("antinfer")
    elif name in __all__:
        value = getattr(importlib.import_module(_HOME.get(name, "antinfer.errors")), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})

"""The public names: frozen, all there, and cheap to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import antinfer

ROOT = Path(__file__).parents[3]
PUBLIC = [
    "Accumulator",
    "AntinferError",
    "BadRows",
    "DataError",
    "Dataset",
    "DecodeJpeg",
    "ForeignOutputError",
    "InfraError",
    "InternalError",
    "Interrupted",
    "Job",
    "JobFileError",
    "JobSpec",
    "SchemaMismatchError",
    "SourceError",
    "TorchPredictor",
    "UsageError",
    "UserCodeError",
    "UserError",
    "VerifyFault",
    "load_job",
    "read_arrow",
    "read_csv",
    "read_files",
    "read_json",
    "read_parquet",
    "read_text",
]
HEAVY = ("torch", "pandas", "numpy", "pyarrow", "grpc", "redis", "pydantic", "yaml", "asyncio", "boto3", "fsspec")


def loaded_after(code):
    check = f"import sys, json\n{code}\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", check], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def test_the_public_names_are_these():
    assert sorted(antinfer.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(antinfer))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there_and_documented(name):
    assert getattr(antinfer, name).__doc__


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'read_parquets'"):
        antinfer.read_parquets  # noqa: B018


def test_import_loads_nothing_heavy():
    assert loaded_after("import antinfer") == []


def test_building_a_job_loads_no_data_library():
    code = "import antinfer as ai\nai.read_parquet('a').map_batches('a:b').write_parquet('o').to_yaml()"
    assert loaded_after(code) == ["pydantic", "yaml"]

"""`import antinfer` is quick, and needs none of the extras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("torch", "boto3", "botocore", "pandas", "ray", "kubernetes", "moto", "fsspec", "hdfs_native")

BLOCK_EXTRAS = f"""
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NotInstalled())
"""

TIME_IMPORTS = """
import sys, time
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""


def python(code: str) -> str:
    """Run `code` in a fresh interpreter at the root of the repository; return what it printed."""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def modules_after(statement: str) -> set[str]:
    printed = python(f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))")
    return set(printed.split())


@pytest.mark.parametrize("module", ["antinfer", "antinfer.cli.app", "antinfer.master.app", "antinfer.worker.agent", "antinfer.worker.app"])
def test_import_needs_no_extra(module: str) -> None:
    assert python(f"{BLOCK_EXTRAS}\nimport {module}") == ""


@pytest.mark.parametrize("module", ["antinfer", "antinfer.cli.app", "antinfer.master.app", "antinfer.worker.agent"])
def test_import_loads_nothing_heavy(module: str) -> None:
    assert modules_after(f"import {module}") & {"torch", "pandas", "ray", "boto3", "kubernetes"} == set()


def test_agent_loads_no_data_library() -> None:
    assert modules_after("import antinfer.worker.agent") & {"pyarrow", "numpy", "torch", "pandas"} == set()


def test_what_is_started_first_loads_least() -> None:
    assert modules_after("import antinfer.cli.app") & {"typer", "rich", "pydantic", "grpc", "asyncio"} == set()
    assert modules_after("import antinfer.worker.hoststart") & {"json", "grpc", "asyncio"} == set()
    assert modules_after("import antinfer.worker.predictors.spawn") & {"json", "grpc", "pyarrow"} == set()


@pytest.mark.parametrize("module", ["antinfer.master.reign", "antinfer.worker.host.app"])
def test_who_is_given_a_checked_job_does_not_check_it(module: str) -> None:
    assert "pydantic" not in modules_after(f"import {module}")


def test_import_is_quick() -> None:
    # Against other imports of the same moment, because the machine may be busy: together they take about 0.25 s on an idle one.
    yardstick = "pyarrow, pydantic, grpc"
    ours = min(float(python(TIME_IMPORTS.format(module="antinfer"))) for _ in range(3))
    theirs = min(float(python(TIME_IMPORTS.format(module=yardstick))) for _ in range(3))

    assert ours < theirs, f"import antinfer took {ours:.3f} s, import {yardstick} {theirs:.3f} s"

"""Helm, where it is installed: the chart rendered with values, as plain objects."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "antinfer"
Object = dict[str, Any]

_BESIDE = Path(sys.executable).parent / "helm"
HELM = str(_BESIDE) if _BESIDE.exists() else shutil.which("helm") or ""
needs_helm = pytest.mark.skipif(not HELM, reason="helm is not installed; `make test` installs it with the extra dev, on Linux")

VALUES: Object = {
    "image": {"repository": "registry.example/antinfer", "tag": "1"},
    "job": {
        "file": {
            "name": "Score all!",
            "source": {"type": "parquet", "path": "s3://bucket/in/"},
            "pipeline": [{"map_batches": "steps:key", "batch_size": 5_000_000}],
            "sink": {"path": "s3://bucket/out/"},
            "workers": {"on_demand": 0.6, "max": 8},
        }
    },
}
"""The fewest that make a job."""


def values(**changes: Any) -> Object:
    """Return `VALUES` with `changes` laid over their first level."""
    return {**VALUES, **changes}


def helm(*arguments: str, given: Object | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm with values on its standard input."""
    command = [HELM, *arguments, *(() if given is None else ("--values", "-"))]
    return subprocess.run(
        command, input=None if given is None else json.dumps(given), capture_output=True, text=True, timeout=60, check=False
    )


def render(given: Object, namespace: str = "batch") -> list[Object]:
    """Return what the chart makes of values. Raises AssertionError with helm's words when it makes nothing."""
    done = helm("template", "release", str(CHART), "--namespace", namespace, given=given)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def refusal(given: Object) -> str:
    """Return why the chart makes nothing of values."""
    done = helm("template", "release", str(CHART), given=given)
    assert done.returncode != 0, done.stdout
    return done.stderr


def one(objects: list[Object], kind: str, suffix: str = "") -> Object:
    """Return the object of a kind whose name ends so; of several the one with the shortest name."""
    return min(
        (each for each in objects if each["kind"] == kind and each["metadata"]["name"].endswith(suffix)),
        key=lambda each: len(each["metadata"]["name"]),
    )

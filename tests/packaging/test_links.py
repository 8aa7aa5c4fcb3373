"""`master/` and `worker/` are imported as `antinfer.master` and `antinfer.worker`, through two committed links, and in no other way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("master", "worker")


@pytest.mark.parametrize("name", FOLDERS)
def test_link_leads_to_the_real_folder(name: str) -> None:
    link = ROOT / "antinfer" / name

    assert link.is_symlink(), (
        f"antinfer/{name} is not a symbolic link: the checkout was made without link support. "
        "Set `git config core.symlinks true` and check the file out again."
    )
    assert os.readlink(link) == f"../{name}"
    assert link.resolve() == ROOT / name
    assert (link / "__init__.py").is_file()


@pytest.mark.parametrize("name", FOLDERS)
def test_import_under_the_wrong_name_is_refused(name: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert f"ImportError: import antinfer.{name}, not {name}" in run.stderr


@pytest.mark.parametrize("name", FOLDERS)
def test_import_under_the_right_name_works(name: str) -> None:
    run = subprocess.run([sys.executable, "-c", f"import antinfer.{name}"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr

"""The wheel holds one top-level package with everything of the three source folders, and installs with the core dependencies alone."""

from __future__ import annotations

import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packaging.wheels import ROOT, build_wheel

SHIPPED_SUFFIXES = {".py", ".pyi", ".lua"}


def shipped_sources() -> set[str]:
    """Return the wheel paths of every tracked or new source file of antinfer/, master/ and worker/."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "antinfer", "master", "worker"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    paths = [Path(line) for line in listed if line and (ROOT / line).is_file()]
    wanted = [path for path in paths if path.suffix in SHIPPED_SUFFIXES or path.name == "py.typed"]
    return {str(path if path.parts[0] == "antinfer" else "antinfer" / path) for path in wanted}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(("pyproject.toml", "README.md", "LICENSE", "antinfer", "master", "worker"), tmp_path_factory.mktemp("source"))


@pytest.mark.slow
def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    tops = {name.split("/", 1)[0] for name in zipfile.ZipFile(wheel).namelist()}

    assert {name for name in tops if not name.endswith(".dist-info")} == {"antinfer"}


@pytest.mark.slow
def test_wheel_holds_every_source_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())

    assert shipped_sources() - held == set()


@pytest.mark.slow
def test_wheel_holds_licence_and_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))

    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    assert "antinfer = antinfer.cli.app:main" in archive.read(entry_points).decode()


def test_core_dependencies_stay_lean() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = " ".join(project["dependencies"]).lower()

    assert [
        name for name in ("torch", "ray", "pandas", "boto3", "google-cloud-storage", "kubernetes", "scipy") if name in core.split()
    ] == []

"""Where the user code of a worker is found on its node."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from antinfer.launchers.ray.actor import code_folder
from antinfer.launchers.ray.settings import RaySettings

CODE = {"steps.py": "x = 1\n", "lib/more.py": "caf\udce9\n"}
SETTINGS = RaySettings(master="h:1", token="t", ca="", cert="", key="", output="o", base_dir="/nowhere/job", code=CODE, options={})


def lay(folder: Path) -> None:
    for path, text in CODE.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode("utf-8", "surrogateescape"))


def test_shared_folders_are_used_in_place(tmp_path: Path) -> None:
    lay(tmp_path)

    with code_folder(replace(SETTINGS, base_dir=str(tmp_path))) as folder:
        assert folder == str(tmp_path)


def test_so_is_the_folder_that_ray_has_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path)
    monkeypatch.chdir(tmp_path)

    with code_folder(SETTINGS) as folder:
        assert folder == str(tmp_path)


def test_elsewhere_a_copy_is_made_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path)
    (tmp_path / "steps.py").write_text("x = 2  # an older one\n")
    monkeypatch.chdir(tmp_path)

    with code_folder(replace(SETTINGS, base_dir=str(tmp_path))) as folder:
        assert folder != str(tmp_path)
        assert Path(folder, "steps.py").read_text() == "x = 1\n"
        assert Path(folder, "lib/more.py").read_bytes() == b"caf\xe9\n"
    assert not Path(folder).exists()


def test_code_that_is_installed_needs_no_folder() -> None:
    with code_folder(replace(SETTINGS, code={})) as folder:
        assert folder == "/nowhere/job"

"""What is wrong with a command line that names Ray, told before anything is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from antinfer.cli.overlays import read_overlays
from antinfer.cli.running import ray_choice
from antinfer.errors import JobFileError, UsageError
from antinfer.launchers.ray.cluster import require_ray
from antinfer.launchers.ray.settings import TEMPLATES


def test_ray_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(UsageError, match="Ray is not installed") as caught:
        require_ray()

    assert caught.value.hint == "pip install 'antinfer[ray]'"


@pytest.mark.parametrize("given", [("h:1", "", None), ("", "h:1", None), ("", "", Path("actors.yaml"))])
def test_what_is_said_about_a_cluster_needs_one(given: tuple[str, str, Path | None]) -> None:
    with pytest.raises(UsageError, match=r"--(address|listen|actors) needs --launcher ray"):
        ray_choice("local", *given)

    assert ray_choice("local", "", "", None) is None
    assert ray_choice("ray", *given) is not None


@pytest.mark.parametrize(
    ("text", "said"), [("workers: {}", "'workers' is not one of worker, protected"), ("worker: 3", "must hold options")]
)
def test_a_file_about_actors_holds_what_actors_have(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "actors.yaml").write_text(text)

    with pytest.raises(JobFileError, match=said):
        read_overlays(tmp_path / "actors.yaml", TEMPLATES, "options of Ray actors")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*actors\.yaml: No such file"):
        read_overlays(tmp_path / "actors.yaml", TEMPLATES, "options of Ray actors")

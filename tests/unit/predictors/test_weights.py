"""Weights are fetched once, by whoever comes first."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from antinfer.errors import SourceError
from antinfer.predictors.weights import fetch

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def remote() -> str:
    """A file system in memory, spoken to as one behind a network."""
    with fsspec.open("memory://weights/model.bin", "wb") as file:
        file.write(b"w" * 100_000)
    yield "memory://weights/model.bin"
    fsspec.filesystem("memory").rm("/weights", recursive=True)


def test_local_files_are_used_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"1")
    assert fetch(str(path), tmp_path / "cache") == path and not (tmp_path / "cache").exists()


def test_remote_files_are_fetched_once_and_again_when_they_change(remote: str, tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(remote, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4 and len(set(found)) == 1 and found[0].read_bytes() == b"w" * 100_000 and found[0].name == "model.bin"
    # A copy that is there is not fetched again.
    found[0].write_bytes(b"ours")
    assert fetch(remote, tmp_path).read_bytes() == b"ours"
    with fsspec.open(remote, "wb") as file:
        file.write(b"v2")
    assert fetch(remote, tmp_path).read_bytes() == b"v2"
    assert not list(tmp_path.rglob(".part-*"))


def test_what_is_not_there_is_named(tmp_path: Path, remote: str) -> None:
    for uri in [str(tmp_path / "no.bin"), "memory://weights/no.bin"]:
        with pytest.raises(SourceError, match=r"no\.bin"):
            fetch(uri, tmp_path / "cache")
    with pytest.raises(SourceError, match="no file"):
        fetch(str(tmp_path), tmp_path / "cache")

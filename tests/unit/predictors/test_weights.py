"""Weights are fetched once, by whoever comes first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from antinfer.errors import InfraError, SourceError
from antinfer.predictors import weights
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


@pytest.fixture(params=["asked", "opened"])
def cut_off(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has the store of `remote` not answer from the call on: when it is asked for the file, or when the connection is opened."""

    def asked(*_: object, **__: object) -> None:
        raise ConnectionError("connection refused")

    def opened(uri: str) -> None:
        raise InfraError(f"cannot open {uri}: connection refused")

    def cut() -> None:
        if request.param == "asked":
            monkeypatch.setattr(type(fsspec.filesystem("memory")), "info", asked)
        else:
            monkeypatch.setattr(weights, "locate", opened)

    return cut


def test_while_the_store_is_away_the_copy_that_was_the_newest_is_used(
    remote: str, tmp_path: Path, cut_off: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    old = fetch(remote, tmp_path)
    with fsspec.open(remote, "wb") as file:
        file.write(b"v2")
    new = fetch(remote, tmp_path)
    os.utime(old, (2e9, 2e9))
    assert not caplog.records
    cut_off()
    assert fetch(remote, tmp_path) == new != old and new.read_bytes() == b"v2"
    (record,) = caplog.records
    assert (
        record.levelname == "WARNING" and remote in record.message and "connection refused" in record.message and str(new) in record.message
    )
    new.unlink()
    with pytest.raises(InfraError, match="connection refused"):
        fetch(remote, tmp_path)


def test_without_a_copy_the_store_is_to_blame(remote: str, tmp_path: Path, cut_off: Callable[[], None]) -> None:
    fetch(remote, tmp_path)
    with fsspec.open("memory://weights/other.bin", "wb") as file:
        file.write(b"other")
    cut_off()
    with pytest.raises(InfraError, match=r"other\.bin: connection refused"):
        fetch("memory://weights/other.bin", tmp_path)


def test_a_store_that_answers_is_believed(remote: str, tmp_path: Path) -> None:
    fetch(remote, tmp_path)
    fsspec.filesystem("memory").rm("/weights/model.bin")
    with pytest.raises(SourceError, match="does not exist"):
        fetch(remote, tmp_path)
    with fsspec.open(remote, "wb") as file:
        file.write(b"for the clean-up")

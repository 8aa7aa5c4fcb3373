"""Sockets have short paths wherever temporary files are."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from antinfer.launchers.sockets import socket_folder


@pytest.mark.parametrize("length", [1, 100])
def test_a_socket_can_be_opened_wherever_temporary_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    place = tmp_path / ("x" * length)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    folder = Path(socket_folder())
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(folder / "master.sock"))
        os.unlink(folder / "master.sock")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not list(place.iterdir()) or folder.parent == place
    finally:
        folder.rmdir()

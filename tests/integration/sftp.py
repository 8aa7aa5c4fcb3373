"""A real SFTP server over the files of a folder, for tests."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncssh

from antinfer.testing.chaos.processes import wait_until
from antinfer.testing.chaos.servers import free_port
from tests.integration.jobs import ROOT

OPTIONS: Mapping[str, str | bool] = {"username": "tester", "password": "s3cr3t", "allow_agent": False, "look_for_keys": False}


class SftpServer:
    """A server as a process of its own; its root is `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"sftp://127.0.0.1:{self.port}"

    def start(self) -> None:
        ready = self.folder.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.integration.sftp", str(self.port), str(self.folder), str(ready)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        wait_until(ready.exists, "the SFTP server listens", seconds=30)

    def fail_a_write(self) -> None:
        """Let one write fail that is neither the first nor the last of its file."""
        _trouble(str(self.folder), "write").touch()

    def fall_silent(self) -> None:
        """Say nothing any more once the next client has been let in."""
        _trouble(str(self.folder), "silence").touch()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def sftp_server(folder: Path) -> Iterator[SftpServer]:
    folder.mkdir(parents=True)
    server = SftpServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class _Authority(asyncssh.SSHServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (OPTIONS["username"], OPTIONS["password"])


class _Files(asyncssh.SFTPServer):
    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], folder: str) -> None:
        super().__init__(channel, chroot=folder.encode())
        self._folder = folder
        if _trouble(folder, "silence").exists():
            time.sleep(1_000)

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        if offset == 1 << 16:
            with contextlib.suppress(FileNotFoundError):
                _trouble(self._folder, "write").unlink()
                raise asyncssh.SFTPFailure("Failure")
        return super().write(file_obj, offset, data)


def _trouble(folder: str, kind: str) -> Path:
    return Path(f"{folder}.{kind}")


async def _serve(port: int, folder: str, ready: Path) -> None:
    await asyncssh.create_server(
        _Authority,
        "127.0.0.1",
        port,
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=lambda channel: _Files(channel, folder),
        allow_scp=False,
    )
    ready.touch()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])))

"""A real HDFS of one name node and one data node, and Hadoop's own client, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from antinfer.testing.chaos.servers import free_port
from tests.integration.jobs import ROOT

_ARCHIVES = Path(os.environ.get("ANTINFER_HADOOP", ROOT / ".venv/hadoop"))
_SERVERS = "org.apache.hadoop.hdfs.server"
_SHELL = "org.apache.hadoop.fs.FsShell"
_ADMIN = "org.apache.hadoop.hdfs.tools.DFSAdmin"
_OLD_JAVA = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in ("lang", "util", "net", "nio")]
_START_S = 60


class Hdfs:
    """The servers of one file system, whose files lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Their pages come with another archive; they serve none, but want to see the folders.
        for pages in ("hdfs", "datanode"):
            (folder / "conf/webapps" / pages).mkdir(parents=True)
        self._configure("core-site", {"fs.defaultFS": self.uri, "hadoop.tmp.dir": str(folder / "data")})
        loopback = {f"dfs.{name}": "127.0.0.1:0" for name in ("namenode.http-address", "datanode.address", "datanode.ipc.address")}
        self._configure(
            "hdfs-site",
            {
                **loopback,
                "dfs.datanode.http.address": "127.0.0.1:0",
                "dfs.replication": "1",
                "dfs.webhdfs.enabled": "false",
                "dfs.heartbeat.interval": "1",
                "dfs.namenode.safemode.extension": "0",
            },
        )
        self._run(f"{_SERVERS}.namenode.NameNode", "-format", "-nonInteractive")
        self.start("namenode")
        self.start("datanode")

    @property
    def uri(self) -> str:
        return f"hdfs://127.0.0.1:{self._port}"

    @property
    def conf(self) -> Path:
        """The folder of its configuration, for clients."""
        return self._folder / "conf"

    def start(self, server: str) -> None:
        """Start ``namenode`` or ``datanode`` on what it has written before; return when a file can be written."""
        name = {"namenode": "NameNode", "datanode": "DataNode"}[server]
        with open(self._folder / f"{server}.log", "ab") as log:
            self._processes[server] = subprocess.Popen(self._command(f"{_SERVERS}.{server}.{name}"), stdout=log, stderr=log)
        if len(self._processes) == 2:
            self._wait()

    def kill(self, server: str) -> None:
        """End ``namenode`` or ``datanode`` with SIGKILL."""
        process = self._processes.pop(server)
        process.kill()
        process.wait()

    def shell(self, *arguments: str) -> str:
        """Run Hadoop's own client, such as ``-get /out /tmp/out``, and return what it says."""
        return self._run(_SHELL, *arguments)

    def admin(self, *arguments: str) -> None:
        """Run the client of administrators, such as ``-setSpaceQuota 1m /folder``."""
        self._run(_ADMIN, *arguments)

    def close(self) -> None:
        for server in list(self._processes):
            self.kill(server)

    def _wait(self) -> None:
        import hdfs_native

        deadline = time.monotonic() + _START_S
        while True:
            try:
                client = hdfs_native.Client(self.uri, {"dfs.client.failover.max.attempts": "1"})
                with client.create("/ready", hdfs_native.WriteOptions(overwrite=True)) as file:
                    file.write(b"ready")
                return
            except (RuntimeError, OSError) as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"HDFS does not come up: {error}\n{self.logs()}") from error
                time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in self._folder.glob("*.log"))

    def _configure(self, name: str, properties: dict[str, str]) -> None:
        body = "".join(f"<property><name>{key}</name><value>{value}</value></property>" for key, value in properties.items())
        (self.conf / f"{name}.xml").write_text(f"<configuration>{body}</configuration>")

    def _command(self, main: str, *arguments: str) -> list[str]:
        return ["java", "-Xmx256m", *_OLD_JAVA, "-cp", f"{self.conf}:{_ARCHIVES}/*", main, *arguments]

    def _run(self, main: str, *arguments: str) -> str:
        done = subprocess.run(self._command(main, *arguments), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@contextmanager
def hdfs(folder: Path) -> Iterator[Hdfs]:
    """Run a file system for the time of the block; skips the test where Java or Hadoop is not there."""
    if shutil.which("java") is None or not list(_ARCHIVES.glob("hadoop-hdfs-*.jar")):
        pytest.skip("needs Java and Hadoop: `make hdfs`")
    running = Hdfs(folder)
    try:
        yield running
    finally:
        running.close()

"""A real stage host under test: a process driven over its socket pair, as an agent does it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from antinfer.core.ids import LeaseId, ShardId
from antinfer.core.plan import Shard
from antinfer.core.ranges import UNSIZED, Rows
from antinfer.core.records import CommitRecord
from antinfer.spec.schema import JobSpec
from antinfer.storage.jobs import RunDocument, open_input, open_output
from antinfer.storage.sources.base import Target
from antinfer.worker import hostlink

PATIENCE_SECONDS = 60.0
_SHARED = "memfd:antinfer"


class HostProcess:
    """A host, and what it said."""

    def __init__(self, document: str, output: str, *, isolated: bool = False, files: int | None = None) -> None:
        """`files`: how many it may have open at first."""
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_SECONDS)
        with theirs:
            command = [sys.executable, "-m", "antinfer.worker.host", str(theirs.fileno())]
            if files is not None:
                # Not here: this process may have more open by now.
                command = ["sh", "-c", 'ulimit -S -n "$0" && exec "$@"', str(files), *command]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self._socket = ours
        self._lines = ours.makefile("rb")
        self.said: list[Any] = []
        self.send(hostlink.Setup("worker-1", "job", document, output, isolated))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()
        try:
            self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()

    def send(self, message: hostlink.ToHost) -> None:
        self._socket.sendall(hostlink.encode(message))

    def everything(self) -> Iterator[Any]:
        """Yield what the host says until it is gone."""
        for line in self._lines:
            yield hostlink.decode(line)

    def messages(self) -> Iterator[Any]:
        """Yield what the host says, progress left out, until it is gone."""
        for message in self.everything():
            if not isinstance(message, hostlink.Progress):
                self.said.append(message)
                yield message

    def wait_for(self, *kinds: type) -> Any:
        """Return the next message of one of `kinds`; anything fatal fails the test."""
        for message in self.messages():
            if isinstance(message, kinds):
                return message
            assert not isinstance(message, hostlink.Failed), message
        raise AssertionError(f"the host ended without {kinds}: {self.said}")

    def stop(self) -> int:
        self.send(hostlink.Stop())
        return self.process.wait(PATIENCE_SECONDS)

    def children(self) -> list[int]:
        return children(self.process.pid)


def children(pid: int) -> list[int]:
    """Return the living child processes of `pid`."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ended meanwhile
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)


class Job:
    """A job on files in a folder: planned by the real source, published by the real place, one task a shard."""

    def __init__(self, folder: Path, code: str, **fields: Any) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "steps.py").write_text(code)
        self.output = str(folder / "output")
        fields.setdefault("sink", {})["path"] = self.output
        fields["source"] = {"type": "parquet", "path": str(folder / "input"), **fields.get("source", {})}
        self.spec = JobSpec.model_validate({**fields, "base_dir": str(folder)})
        source = open_input(self.spec)
        files = source.list_files()
        self.schema = source.freeze(files)
        self.shards: list[Shard] = []
        for file in files:
            for sized in source.pieces(file, Target(1 << 30, None)):
                piece = sized.piece
                self.shards.append(Shard(ShardId(len(self.shards)), (piece,), piece.rows, sized.size_bytes))
        self.place = open_output(self.spec)

    @property
    def document(self) -> str:
        return RunDocument(self.spec, self.schema, "code-1").to_json()

    def host(self, *, isolated: bool = False, files: int | None = None) -> HostProcess:
        return HostProcess(self.document, self.output, isolated=isolated, files=files)

    def work(self, shard: int, start: int = 0, stop: int | None = None, *, n: int | None = None, quarantine: str = "") -> hostlink.Work:
        known = self.shards[shard]
        if stop is None:
            stop = UNSIZED if known.rows is None else known.rows
        return hostlink.Work(LeaseId(1, shard if n is None else n), known, Rows(start, stop), 1, quarantine)

    def run(self, work: Sequence[hostlink.Work] | None = None) -> list[CommitRecord]:
        """Run `work` (default: all shards) in a fresh host, publish all of it and return the records in order of their rows."""
        todo = list(work if work is not None else [self.work(index) for index in range(len(self.shards))])
        with self.host() as host:
            host.wait_for(hostlink.Ready)
            for item in todo:
                host.send(item)
            records = collect(host, todo)
            assert host.stop() == 0
        self.publish(records)
        return records

    def publish(self, records: Sequence[CommitRecord]) -> None:
        for record in records:
            self.place.publish(record, self.spec.sink.type)

    def fails(self) -> hostlink.Failed:
        """Run all shards in a host that fails, and return what it said."""
        with self.host() as host:
            for index in range(len(self.shards)):
                host.send(self.work(index))
            failure = next(message for message in host.messages() if isinstance(message, hostlink.Failed))
            assert host.process.wait(PATIENCE_SECONDS) == 1
        return failure

    def table(self) -> pa.Table:
        parts = [os.path.join(self.output, part.name) for part in self.place.list_parts()]
        return pa.concat_tables([pq.read_table(part) for part in parts])


def collect(host: HostProcess, work: Sequence[hostlink.Work]) -> list[CommitRecord]:
    """Wait until every range of `work` is staged whole; return the records in order of their rows."""
    at = {item.lease: item.rows.start for item in work}
    stops = {item.lease: item.rows.stop for item in work}
    records: list[CommitRecord] = []
    while any(at[lease] < stops[lease] for lease in at):
        message = host.wait_for(hostlink.Staged, hostlink.Sized)
        if isinstance(message, hostlink.Sized):
            stops[message.lease] = message.rows
            continue
        record = message.record
        assert record.start == at[message.lease], "prefixes of a lease come in order"
        at[message.lease] = record.stop
        records.append(record)
    return sorted(records, key=lambda record: (record.shard, record.start))


def slabs_of(pid: int) -> int:
    """Count the pieces of our shared memory that a process maps or holds open."""
    mapped = sum(_SHARED in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    opened = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            opened += _SHARED in os.readlink(entry)
        except FileNotFoundError:
            continue
    return mapped + opened


class Crew:
    """Threads of a part of a host that is driven without the rest of it, and what they died of."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                target()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                self.errors.append(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), thread.name

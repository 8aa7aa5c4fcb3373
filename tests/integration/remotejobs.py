"""Jobs from a folder of a remote store to another one, as processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from antinfer.errors import OutputError
from antinfer.spec.schema import JobSpec
from antinfer.storage import layout
from antinfer.storage.place import open_place
from antinfer.testing.chaos.cluster import Cluster
from antinfer.testing.chaos.processes import wait_until
from tests.integration.jobs import Scoring


class RemoteJob:
    """A job that reads ``<folder>/in``, where its owner puts what lies in ``in`` below `local`, and writes ``<folder>/out``."""

    def __init__(self, local: Path, folder: str, environment: Mapping[str, str], storage: Mapping[str, Any] | None = None) -> None:
        self._local = local
        self.scoring = Scoring(local, shards=16, shard_rows=100, pause_s=0.001)
        options = {"storage": dict(storage)} if storage else {}
        self.spec: JobSpec = self.scoring.make(
            source={"type": "parquet", "path": f"{folder}/in/*.parquet", "options": options},
            sink={"path": f"{folder}/out", "row_ids": True, "options": options},
            tuning="off",
        )
        self._place = open_place(f"{folder}/out", {key: str(value).lower() for key, value in (storage or {}).items()})
        self._seen: list[str] = []
        # The state of the embedded store lies below the home directory when the output is far away.
        self._environment = {"HOME": str(local), **environment}

    def _names(self) -> list[str]:
        """List what is published; while the store does not answer, what was there before."""
        try:
            ended = [] if self._place.read(layout.SUCCESS) is None else [layout.SUCCESS]
            self._seen = [*ended, *(part.name for part in self._place.list_parts())]
        except OutputError as error:
            print(error)
        return self._seen

    @contextmanager
    def running(self) -> Iterator[Cluster]:
        """Give the processes for the time of the block; in the end there are none."""
        # Not below `local`: the path of a socket may have 107 bytes at most.
        with tempfile.TemporaryDirectory(prefix="ai-") as logs:
            cluster = Cluster(self.spec, self.scoring.rows, Path(logs), 2.0, self._environment, self._names, (self._local,))
            try:
                yield cluster
            finally:
                cluster.close()
                print(cluster.logs())

    def run_while_killing(self, server: str, kill: Callable[[], None], start: Callable[[], None]) -> None:
        """Run the job to its end; on the way kill a worker, then the `server` of the store, and start that again when it is missed."""
        with self.running() as cluster:
            master = cluster.master()
            first = cluster.worker("first")
            cluster.wait_for_rows(200)
            cluster.fault("kill -9 of a worker", first.kill)
            second = cluster.worker("second")
            cluster.wait_for_rows(500)
            cluster.fault(f"kill -9 of {server}", kill)
            wait_until(lambda: f"{server} cannot be reached" in master.log + second.log, f"somebody misses {server}", seconds=60)
            start()
            cluster.finish(second, master)

"""Input from a web server that knows of no ranges, as Python's own does not."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.storage.filesystems import resolve

pytest.importorskip("aiohttp")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_all_of_a_file_instead_of_a_range(url: str, tmp_path: Path) -> None:
    rows = pa.table({"n": range(300_000)})
    pq.write_table(rows, tmp_path / "rows.parquet", use_dictionary=False, compression="none")
    filesystem, path = resolve(f"{url}/rows.parquet")
    assert pq.read_table(path, filesystem=filesystem) == rows
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == (tmp_path / "rows.parquet").read_bytes()

"""Input from a web server that knows of no ranges, as Python's own does not, and what one says that gives nothing."""

from __future__ import annotations

import functools
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from antinfer.errors import InfraError, SourceError
from antinfer.storage.filesystems import locate, resolve
from antinfer.storage.sources.listing import list_inputs

pytest.importorskip("aiohttp")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Gives the files of a folder; ``/status/NUMBER/...`` is answered with that status, and a name with a star is refused."""

    def send_head(self) -> Any:
        first, _, rest = self.path.lstrip("/").partition("/")
        if first == "status":
            self.send_error(int(rest.partition("/")[0]))
            return None
        if "*" in self.path:
            self.send_error(403)
            return None
        return super().send_head()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Handler, directory=str(tmp_path))
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


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (401, SourceError, r"cannot list .*/rows.csv: unauthorized \(HTTP 401\)"),
        (403, SourceError, r"cannot list .*/rows.csv: forbidden \(HTTP 403\)"),
        (404, SourceError, r"input does not exist: "),
        (410, SourceError, r"input does not exist: "),
        (429, InfraError, r"cannot list .*/rows.csv: too many requests \(HTTP 429\)"),
        (503, InfraError, r"cannot list .*/rows.csv: service unavailable \(HTTP 503\)"),
    ],
)
def test_what_the_server_says_is_told(url: str, status: int, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        list_inputs([f"{url}/status/{status}/rows.csv"], locate)


def test_a_server_that_does_not_answer_is_not_an_input_that_does_not_exist() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(InfraError, match="Cannot connect"):
            list_inputs([f"http://127.0.0.1:{closed.getsockname()[1]}/rows.csv"], locate)


def test_a_server_that_refuses_a_star_may_give_what_it_stands_for(url: str, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_text("n\n1\n")
    assert [file.path for file in list_inputs([f"{url}/*.csv"], locate)] == [f"{url}/a.csv", f"{url}/b.csv"]

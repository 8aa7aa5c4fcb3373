"""Byte ranges: however a file is cut, every line is read once, in order."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antinfer.core.plan import Piece
from antinfer.storage.sources import lines, open_source
from antinfer.storage.sources.lines import Skip
from tests.unit.storage.reading import opened, rows_between, rows_of, shard_of

ENDS = st.sampled_from(["\n", "\r\n"])
WORDS = st.text(st.sampled_from("ab é漢😀\t"), max_size=8)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@st.composite
def line_files(draw: st.DrawFn, words: st.SearchStrategy[str]) -> tuple[list[str], bytes]:
    """The values of the lines, and the file: any mix of line ends, with or without one at the end, with or without a byte-order mark."""
    values = draw(st.lists(words, max_size=12))
    ends = [draw(ENDS) for _ in values]
    if values and values[-1] and draw(st.booleans()):
        ends[-1] = ""
    mark = "\ufeff" if draw(st.booleans()) else ""
    return values, (mark + "".join(value + end for value, end in zip(values, ends, strict=True))).encode()


@st.composite
def cuttings(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    cuts = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=6))})
    return list(pairwise(cuts))


@given(st.data())
def test_any_cutting_yields_each_byte_once(data: st.DataObject) -> None:
    _, content = data.draw(line_files(WORDS))
    block_bytes = data.draw(st.integers(1, 20))
    found = b""
    for start, stop in data.draw(cuttings(len(content))):
        for block in lines.blocks(io.BytesIO(content), start, stop, block_bytes):
            assert content[block.offset :].startswith(block.data)
            assert block.data.endswith(b"\n") or block.offset + len(block.data) == len(content)
            found += block.data
    assert found == content.removeprefix(b"\xef\xbb\xbf")


@given(st.lists(st.sampled_from(["", " ", "\t", "a", "b c"]), max_size=8), st.data())
def test_count_rows(values: list[str], data: st.DataObject) -> None:
    content = "".join(value + data.draw(ENDS) for value in values)
    if values and values[-1] and data.draw(st.booleans()):
        content = content.rstrip("\r\n")
    raw = content.encode()
    assert lines.count_rows(raw, Skip.NONE) == len(values)
    assert lines.count_rows(raw, Skip.EMPTY) == sum(value != "" for value in values)
    assert lines.count_rows(raw, Skip.WHITE) == sum(value.strip() != "" for value in values)
    for skip in Skip:
        count = lines.count_rows(raw, skip)
        assert lines.has_rows(raw, skip) == (count > 0)
        assert lines.one_row_a_line(raw, count, skip)
        assert not any(lines.one_row_a_line(raw, rows, skip) for rows in range(count))
        assert not lines.one_row_a_line(raw, len(values) + 1, skip)
    assert b"".join(lines.split_lines(raw)) == raw
    assert len(lines.split_lines(raw)) == len(values)


def read_cut(kind: str, path: Path, size: int, data: st.DataObject, key: str) -> list[str]:
    """Read a file through any cutting, each shard through any slicing of its rows."""
    source = opened(kind, path)
    fresh = open_source(kind, str(path), frozen_schema=source.frozen_schema)
    found: list[str] = []
    for i, (start, stop) in enumerate(data.draw(cuttings(size))):
        shard = shard_of(Piece(str(path), start, stop, None), index=i)
        total = source.count_rows(shard)
        marks = sorted({0, total, *data.draw(st.lists(st.integers(0, total), max_size=2))})
        for a, b in zip(marks, [*marks[1:], 1 << 40], strict=True):
            reader = source if data.draw(st.booleans()) else fresh
            rows = rows_between(reader, shard, a, b, data.draw(st.integers(1, 4)))
            assert len(rows) == min(b, total) - a
            found += [row[key] for row in rows]
    return found


@settings(max_examples=60)
@given(data=st.data())
def test_text(folder: Path, data: st.DataObject) -> None:
    values, content = data.draw(line_files(WORDS))
    path = folder / "x.txt"
    path.write_bytes(content)
    assert read_cut("text", path, len(content), data, "text") == values


@settings(max_examples=60)
@given(data=st.data())
def test_jsonl(folder: Path, data: st.DataObject) -> None:
    objects = st.builds(lambda word: json.dumps({"a": word}, ensure_ascii=False), WORDS)
    values, content = data.draw(line_files(st.one_of(objects, st.just("")) | st.just(" ")))
    path = folder / "x.jsonl"
    path.write_bytes(content)
    expected = [json.loads(value)["a"] for value in values if value.strip()]
    assert read_cut("jsonl", path, len(content), data, "a") == expected


@settings(max_examples=60)
@given(data=st.data())
def test_csv(folder: Path, data: st.DataObject) -> None:
    words = st.text(st.sampled_from('ab é漢😀,"'), max_size=8)
    records = st.builds(lambda word: '"' + word.replace('"', '""') + '",1', words)
    values, content = data.draw(line_files(st.one_of(records, st.just(""))))
    content = b"a,b" + data.draw(ENDS).encode() + content.removeprefix(b"\xef\xbb\xbf")
    path = folder / "x.csv"
    path.write_bytes(content)
    expected = [value[1:-3].replace('""', '"') for value in values if value]
    assert read_cut("csv", path, len(content), data, "a") == expected


def test_rows_cross_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines.blocks, "__defaults__", (257,))
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"i": i, "s": "x" * (i % 50)}) + "\n" for i in range(3000)))
    source = opened("jsonl", path)
    size = path.stat().st_size
    shards = [shard_of(Piece(str(path), a, b, None), index=a) for a, b in [(0, 1000), (1000, 1001), (1001, size)]]
    assert [row["i"] for row in rows_of(source, shards)] == list(range(3000))

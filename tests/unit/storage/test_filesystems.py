"""URIs, file systems and patterns."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from antinfer.errors import InfraError, JobFileError, OutputError, SourceError
from antinfer.storage import filesystems
from antinfer.storage.planning import plan_shards
from antinfer.storage.sources import listing, open_source


def names(found: list, base: Path) -> list[str]:
    return [os.path.relpath(file.path, base) for file in found]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ["a.csv", "b.csv", "b.txt", "_hidden.csv", ".dot.csv", "x/c.csv", "x/y/d.csv", "x/_tmp/e.csv", "_SUCCESS", "odd[1].csv"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("/a//b/../c/", "/a/c"),
        ("file:///a/b%20c/", "/a/b c"),
        ("file://localhost/a", "/a"),
        ("S3://Bucket//key/", "s3://Bucket/key"),
        ("s3a://bucket/key", "s3://bucket/key"),
        ("gcs://bucket/key", "gs://bucket/key"),
        ("hdfs://host:8020/a/b/", "hdfs://host:8020/a/b"),
    ],
)
def test_canonical_uri(uri: str, canonical: str) -> None:
    assert filesystems.canonical_uri(uri) == canonical
    assert filesystems.canonical_uri(canonical) == canonical


def test_relative_path_counts_from_working_directory() -> None:
    assert filesystems.canonical_uri("x/y") == os.path.join(os.getcwd(), "x/y")


@pytest.mark.parametrize("uri", ["", "  ", "s3://"])
def test_empty_uri_is_refused(uri: str) -> None:
    with pytest.raises(JobFileError):
        filesystems.resolve(uri)


def test_unknown_option_names_the_allowed_ones() -> None:
    with pytest.raises(JobFileError, match="endpont") as error:
        filesystems.resolve("s3://bucket/x", {"endpont": "h:1"})
    assert "endpoint_override" in error.value.hint


def test_unknown_scheme_names_package() -> None:
    with pytest.raises(SourceError) as error:
        filesystems.resolve("nosuch://host/x")
    assert "nosuch" in str(error.value)
    assert error.value.hint


def test_fsspec_opens_what_pyarrow_does_not_know() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name in ("b", "a", "_hidden"):
        memory.pipe_file(f"/antinfer-test/{name}.txt", b"one\ntwo\n")
    source = open_source("text", "memory://antinfer-test/*.txt")
    files = source.list_files()
    assert [file.path for file in files] == ["memory://antinfer-test/a.txt", "memory://antinfer-test/b.txt"]
    [shard] = [shard for chunk in plan_shards(source, files[:1], threads=1) for shard in chunk.shards]
    assert [row["text"] for batch in source.read(shard, 0, 10, 10) for row in batch.to_pylist()] == ["one", "two"]
    memory.rm("/antinfer-test", recursive=True)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.csv", ["a.csv", "b.csv", "odd[1].csv"]),
        ("?.csv", ["a.csv", "b.csv"]),
        ("[!a].csv", ["b.csv"]),
        ("[ab].*", ["a.csv", "b.csv", "b.txt"]),
        ("_*.csv", ["_hidden.csv"]),
        ("**/*.csv", ["a.csv", "b.csv", "odd[1].csv", "x/c.csv", "x/y/d.csv"]),
        ("x/**", ["x/c.csv", "x/y/d.csv"]),
        ("*/*.csv", ["x/c.csv"]),
        ("x/_tmp/*.csv", ["x/_tmp/e.csv"]),
        ("odd[1].csv", ["odd[1].csv"]),
        ("", ["a.csv", "b.csv", "b.txt", "odd[1].csv", "x/c.csv", "x/y/d.csv"]),
        ("x/_tmp", ["x/_tmp/e.csv"]),
    ],
)
def test_expansion(tree: Path, pattern: str, expected: list[str]) -> None:
    found = listing.list_inputs([str(tree / pattern)], filesystems.locate)
    assert names(found, tree) == expected
    assert all(file.size_bytes == 4 and file.version == str(os.stat(file.path).st_mtime_ns) for file in found)


def test_overlapping_paths_give_each_file_once(tree: Path) -> None:
    found = listing.list_inputs([str(tree / "b.*"), str(tree / "*.csv"), f"file://{tree}/a.csv"], filesystems.locate)
    assert names(found, tree) == ["a.csv", "b.csv", "b.txt", "odd[1].csv"]


@pytest.mark.parametrize(
    ("pattern", "said"), [("nothing*.csv", "no file matches"), ("gone.csv", "does not exist"), ("no/where/*.csv", "no file")]
)
def test_no_match(tree: Path, pattern: str, said: str) -> None:
    with pytest.raises(SourceError, match=said) as error:
        listing.list_inputs([str(tree / pattern)], filesystems.locate)
    assert pattern in str(error.value)


def test_folder_of_hidden_files_only(tmp_path: Path) -> None:
    (tmp_path / "_x").write_text("")
    with pytest.raises(SourceError, match="holds no input file"):
        listing.list_inputs([str(tmp_path)], filesystems.locate)


def test_explain_keeps_or_changes_blame() -> None:
    gone = filesystems.explain(FileNotFoundError(2, "No such file or directory"), "/x/y", "read")
    assert type(gone) is SourceError
    assert str(gone) == "cannot read /x/y: it does not exist"
    lost = OSError("AWS Error NETWORK_CONNECTION during HeadObject: curlCode: 28")
    assert type(filesystems.explain(lost, "s3://b/x", "read")) is InfraError
    assert type(filesystems.explain(OSError("AWS Error SLOW_DOWN"), "s3://b/x", "write", error=OutputError)) is OutputError
    denied = filesystems.explain(PermissionError(13, "Failed to open local file '/x'. Detail: [errno 13] Permission denied"), "/x", "read")
    assert type(denied) is SourceError
    assert str(denied) == "cannot read /x: permission denied"
    assert "permissions" in denied.hint
    assert type(filesystems.explain(pa.ArrowInvalid("Parquet magic bytes not found"), "/x", "read")) is SourceError

"""What published parts and their names tell: whose they are, their commit records, and how many rows they really hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import BinaryIO

from antinfer.core.ranges import Rows
from antinfer.core.records import CommitRecord, StagedObject, parse_output_name
from antinfer.storage import layout

_COUNT_CHUNK_BYTES = 1 << 20


def record_text(record: CommitRecord) -> str:
    """Return `record` as the text to put into a part's metadata (`layout.RECORD_KEY`) or into a record object.

    Written before the objects are staged, so their tokens and the part's size are not in it.
    """
    return json.dumps(timeless(record).to_json(), separators=(",", ":"))


def timeless(record: CommitRecord) -> CommitRecord:
    """Return `record` without what is only known after its text was written: compare records in this form."""
    return replace(record, size_bytes=0, objects=tuple(StagedObject(staged.kind) for staged in record.objects))


def has_part(record: CommitRecord) -> bool:
    """Tell whether `record` has results at all: a range whose rows are all in quarantine has no part."""
    return any(staged.kind == "part" for staged in record.objects)


def unambiguous(proven: Sequence[CommitRecord]) -> list[CommitRecord]:
    """Return those of `proven` that share their part with no other one: of two record objects beside one part, neither proves it."""
    owners = Counter(layout.stem_of(record) for record in proven if has_part(record))
    return [record for record in proven if not has_part(record) or owners[layout.stem_of(record)] == 1]


def without_rivals(
    names: Collection[str], records: Iterable[CommitRecord], names_of: Callable[[CommitRecord], Sequence[str]]
) -> list[CommitRecord]:
    """Return those of `records` of whose rows no object of another commit holds any.

    Attempts at one range share the name of their part, and no other name. As the part is published last, one that is there while another
    object of the record is not belongs to somebody else: to publish the rest beside it would show rows twice. A record that is a part
    alone is left to publication, which reads whose the part is.

    Args:
        names: the final names of all objects that are there, listed with the parts last.
        records: what is to be published.
        names_of: gives the final names of a record's objects.
    """
    taken: dict[tuple[int, int], list[tuple[Rows, str]]] = {}
    for name in names:
        shard, start, stop, round = parse_output_name(layout.stem(name))
        taken.setdefault((shard, round), []).append((Rows(start, stop), name))

    def has_rival(record: CommitRecord) -> bool:
        own = names_of(record)
        if not all(name in names for name in own):
            own = [name for name in own if not layout.is_part(name)]
        return any(rows.overlaps(record.rows) and name not in own for rows, name in taken.get((record.shard, record.round), ()))

    return [record for record in records if not has_rival(record)]


def parse_record(data: bytes | str) -> CommitRecord | None:
    """Read a commit record from JSON; None when it is none."""
    try:
        return CommitRecord.from_json(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def carried_record(file: BinaryIO, name: str) -> CommitRecord | None:
    """Return the record in the metadata of the part `file` named `name`; None when it carries none or is no readable part."""
    text = carried_text(file, name)
    return None if text is None else parse_record(text)


def carried_text(file: BinaryIO, name: str) -> str | None:
    """Return that record as its text, or None."""
    if not name.endswith(".parquet"):
        return None
    # Imported on use: every place knows this module, but a process that only stages and publishes needs none of Arrow.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file).metadata or {}
    except pa.ArrowInvalid:
        return None
    except OSError as error:
        # A damaged footer is reported like this too, but without the errno of a real failure to read.
        if error.errno is not None:
            raise
        return None
    text = metadata.get(layout.RECORD_KEY.encode())
    return None if text is None else text.decode("utf-8", "replace")


def count_rows(file: BinaryIO, name: str) -> int:
    """Count the rows of the part `file` named `name` without decoding them.

    Raises ValueError (also as pyarrow.ArrowInvalid) or OSError when it is truncated, damaged or of an unknown suffix.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name.endswith(".parquet"):
        return int(pq.read_metadata(file).num_rows)
    if name.endswith(".arrow"):
        with pa.ipc.open_file(file) as reader:
            return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
    if name.endswith(".jsonl"):
        return _count_lines(file)
    raise ValueError(f"{name}: no known part suffix")


def _count_lines(file: BinaryIO) -> int:
    lines, last = 0, b"\n"
    while chunk := file.read(_COUNT_CHUNK_BYTES):
        lines += chunk.count(b"\n")
        last = chunk[-1:]
    if last != b"\n":
        raise ValueError("the last line has no end")
    return lines

"""Every name in an output place, and nothing else knows them.

::

    <output>/
      part-<shard>-<start>-<stop>[-r<round>].<suffix>   results; names sort in input order
      _SUCCESS                                          the job is complete and was audited
      _antinfer/                                        hidden from data set readers by its underscore
        job                                             the job document (JSON): specification and fingerprints
        report                                          the final report (JSON)
        failed                                          why the last master gave the job up (JSON), for people and tools
        master                                          where the last master listened (JSON), for people and tools
        epochs/<n>                                      who claimed reign n (JSON)
        plan/...                                        the plan, in chunks
        manifest/<epoch>-<n>.chunk                      commit records (Arrow IPC)
        records/<output name>.<attempt>                 one commit record (JSON), where the part cannot carry it
        quarantine/<output name>.<attempt>              rows given up on (Arrow IPC)
        rounds/<n>                                      the rows that retry round n takes out of quarantine (Arrow IPC)
        events/<epoch>-<n>.chunk                        what the masters were told and did, in order (`storage.eventlog`)
        types/<fingerprint>                             an output schema without unknown types (Arrow IPC)
        staging/<staged name>.<kind>                    staged object, or its marker on an object store
        spool/<process>/...                             files being written; private to one process
        state/                                          files of an embedded store server (local outputs only)

Nothing under ``_antinfer/`` ends in the suffix of a data format, so no glob for data meets it. All names are relative to the output
place and use ``/``.

``<attempt>`` is lease and nonce of the staged name. A master removes record and quarantine objects of unfinished commits, and may be
stopped for long right before it does; by then another master can have published the same rows, so their objects must have other names.
Parts have no need of it: none is removed while anything is left to publish (`manifest.list_output`, `manifest.audit_parts`).
"""

from __future__ import annotations

from typing import Final, get_args

from antinfer.core.ids import StagedName, lease_of
from antinfer.core.records import CommitRecord, ObjectKind, output_name, parse_output_name

HIDDEN: Final = "_antinfer"
SUCCESS: Final = "_SUCCESS"
JOB: Final = f"{HIDDEN}/job"
REPORT: Final = f"{HIDDEN}/report"
MASTER: Final = f"{HIDDEN}/master"
WORKERS: Final = f"{HIDDEN}/workers"
FAILED: Final = f"{HIDDEN}/failed"

EPOCHS: Final = "epochs"
PLAN: Final = "plan"
MANIFEST: Final = "manifest"
EVENTS: Final = "events"
RECORDS: Final = "records"
QUARANTINE: Final = "quarantine"
ROUNDS: Final = "rounds"
TYPES: Final = "types"
STAGING: Final = "staging"
SPOOL: Final = "spool"
STATE: Final = "state"

RECORD_KEY: Final = "antinfer.record"
"""Key of the commit record (JSON) in the metadata of a part that can carry it."""

PART_PREFIX: Final = "part-"
KINDS: Final[tuple[ObjectKind, ...]] = get_args(ObjectKind)


def folder(name: str) -> str:
    """Return the path of a folder of ours, such as ``layout.folder(layout.PLAN)``."""
    return f"{HIDDEN}/{name}"


def epoch_name(epoch: int) -> str:
    return f"{HIDDEN}/{EPOCHS}/{epoch}"


def chunk_name(epoch: int, n: int) -> str:
    """Name the `n`-th manifest chunk of a reign; names sort in the order of writing."""
    return f"{HIDDEN}/{MANIFEST}/{epoch:08d}-{n:010d}.chunk"


def events_name(epoch: int, n: int) -> str:
    """Name the `n`-th chunk of the event log of a reign; names sort in the order of writing."""
    return f"{HIDDEN}/{EVENTS}/{epoch:08d}-{n:08d}.chunk"


def parse_events_name(name: str) -> tuple[int, int] | None:
    """Read (epoch, n) back from `events_name`; None for a name that is not ours."""
    stem, _, suffix = name.rpartition("/")[2].partition(".")
    epoch, _, n = stem.partition("-")
    return (int(epoch), int(n)) if suffix == "chunk" and epoch.isdigit() and n.isdigit() else None


def round_name(number: int) -> str:
    return f"{HIDDEN}/{ROUNDS}/{number:08d}"


def staged_path(staged: str, kind: ObjectKind) -> str:
    return f"{HIDDEN}/{STAGING}/{staged}.{kind}"


def split_staged(name: str) -> tuple[StagedName, ObjectKind] | None:
    """Read (staged name, kind) back from the last component of `staged_path`; None for a name that is not ours."""
    staged, _, suffix = name.rpartition("/")[2].rpartition(".")
    for kind in KINDS:
        if suffix == kind and staged:
            return StagedName(staged), kind
    return None


def is_swept(name: str, before: int, keep: frozenset[str]) -> bool:
    """Tell whether a listed object of staging goes in a sweep: of an epoch below `before` and not in `keep`, or not ours at all."""
    split = split_staged(name)
    if split is None:
        return True
    try:
        return lease_of(split[0]).epoch < before and split[0] not in keep
    except ValueError:
        return True


def final_name(kind: ObjectKind, record: CommitRecord, suffix: str) -> str:
    """Return the final name of the object of `kind` that belongs to `record`.

    `suffix` is that of the sink (``parquet``, ``jsonl``, ``arrow``), without a dot; it matters for parts only.
    """
    match kind:
        case "part":
            return f"{stem_of(record)}.{suffix}"
        case "quarantine":
            return f"{HIDDEN}/{QUARANTINE}/{_private(record)}"
        case "record":
            return f"{HIDDEN}/{RECORDS}/{_private(record)}"


def _private(record: CommitRecord) -> str:
    lease, _, rest = record.staged.partition(".")
    return f"{stem_of(record)}.{lease}.{rest.rpartition('.')[2]}"


def stem_of(record: CommitRecord) -> str:
    """Return the name that the objects of `record` share."""
    return output_name(record.shard, record.start, record.stop, record.round)


def final_names(record: CommitRecord, suffix: str) -> list[str]:
    """Return the final names of all objects of `record`, in publication order."""
    return [final_name(staged.kind, record, suffix) for staged in record.objects]


def stem(name: str) -> str:
    """Return the range's name in the final name of any object: what `stem_of` gives for the record behind it."""
    return name.rpartition("/")[2].split(".", 1)[0]


def is_part(name: str) -> bool:
    """Tell whether `name` is the final name of a part (of any suffix) directly inside the output place."""
    if not name.startswith(PART_PREFIX) or "/" in name or "." not in name:
        return False
    try:
        parse_output_name(name)
    except ValueError:
        return False
    return True


def is_ours(name: str) -> bool:
    """Tell whether an object named so belongs to this output, and not to another one below it or to somebody else."""
    return is_part(name) or name == SUCCESS or name.startswith(f"{HIDDEN}/")

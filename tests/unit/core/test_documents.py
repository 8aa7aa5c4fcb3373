"""Documents that are put together by hand say what an encoder would say."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from antinfer.core import documents
from antinfer.core.ids import LeaseId, SessionId, ShardId, StagedName, WorkerId
from antinfer.core.ledger import Lease, OpenShard, Pending
from antinfer.core.paces import Pace
from antinfer.core.ranges import UNSIZED, Rows, RowSet
from antinfer.core.records import CommitRecord, StagedObject
from antinfer.core.sessions import Session

numbers = st.integers(0, 2**62)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
records = st.builds(
    CommitRecord,
    shard=numbers,
    start=numbers,
    stop=numbers,
    staged=texts.map(StagedName),
    objects=st.lists(st.builds(StagedObject, st.sampled_from(["part", "quarantine", "record"]), texts), max_size=3).map(tuple),
    rows_out=numbers,
    rows_quarantined=numbers,
    row_hash=texts,
    round=numbers,
    rows_retried=numbers,
    attempt=numbers,
    worker=texts,
    schema=texts,
    code=texts,
    size_bytes=numbers,
    accumulators=texts,
    seconds=st.one_of(st.floats(0, 1e9), st.integers(0, 100)),
)


@given(records)
def test_the_text_of_a_record_is_its_json(record: CommitRecord) -> None:
    assert json.loads(record.to_text()) == record.to_json()
    assert CommitRecord.from_json(json.loads(record.to_text())) == record


@given(texts, numbers, st.booleans(), st.floats(0, 1e9))
def test_a_session_survives_its_document(worker: str, last_request: int, draining: bool, rate: float) -> None:
    session = Session(SessionId("3-1"), WorkerId(worker), last_request, draining=draining, pace=Pace(rate))
    (loaded,) = documents.decode({f"{documents.SESSION}3-1": documents.encode_session(session)}).sessions
    assert (loaded.id, loaded.worker, loaded.last_request, loaded.draining) == ("3-1", worker, last_request, draining)
    assert loaded.pace.rate == rate


@given(st.one_of(st.none(), numbers), st.lists(st.tuples(numbers, numbers, numbers), max_size=3), texts)
def test_a_shard_survives_its_document(size: int | None, counts: list[tuple[int, int, int]], session: str) -> None:
    shard = OpenShard(size, RowSet([(0, 3), (5, 7)]))
    for n, (attempt, strikes, order) in enumerate(counts):
        shard.pending[10 * n] = Pending(Rows(10 * n, 10 * n + 5), attempt, strikes, -order)
        lease = Lease(LeaseId(2, n), SessionId(session), ShardId(4), Rows(10 * n + 5, UNSIZED), attempt, strikes, request=order)
        shard.leases[lease.id] = lease
    assert documents.decode({f"{documents.SHARD}4": documents.encode_shard(shard)}).shards == {4: shard}


@given(st.lists(numbers, max_size=3), texts, st.dictionaries(numbers, numbers, max_size=3))
def test_meta_survives_its_document(finished: list[int], schema: str, closed_below: dict[int, int]) -> None:
    runs = RowSet((shard, shard + 1) for shard in set(finished))
    meta = documents.Meta(7, runs, documents.Totals(40, 30, 10, 4), schema, 3, closed_below)
    assert documents.decode({documents.META: documents.encode_meta(meta)}).meta == meta

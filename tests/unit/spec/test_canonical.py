"""One job, one text; and what has changed between two."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from antinfer.errors import JobFileError
from antinfer.spec.canonical import (
    canonical_json,
    document_json,
    explain_changes,
    from_document,
    job_fingerprint,
    public_document,
    to_yaml,
)
from antinfer.spec.load import build_job
from antinfer.spec.normal import Fields, normal_job
from antinfer.spec.schema import JobSpec, StageSpec
from antinfer.spec.yamlfile import read_yaml
from tests.unit.spec.jobs import job_files, sample


def load(text, base_dir="/base"):
    value, lines = read_yaml(text, "job.yaml")
    return build_job(value, lines, base_dir)


def fields_of(part):
    """Return a part of a job as values that can be compared, whichever class it is of."""
    if isinstance(part, (Fields, BaseModel)):
        return {name: fields_of(value) for name, value in vars(part).items()}
    if isinstance(part, dict):
        return {name: fields_of(value) for name, value in part.items()}
    return tuple(map(fields_of, part)) if isinstance(part, tuple) else part


@given(job_files())
@settings(max_examples=60, deadline=None)
def test_job_survives_yaml_and_documents(raw):
    job = JobSpec.model_validate({**raw, "base_dir": "/base"})

    assert load(to_yaml(job)) == job
    assert from_document(document_json(job)) == job.model_copy(update={"store": sample().store})
    assert canonical_json(load(to_yaml(job))) == canonical_json(job)
    assert explain_changes(canonical_json(job), document_json(job)) == []
    assert "secret" not in document_json(job)


@given(job_files())
@settings(max_examples=60, deadline=None)
def test_normal_job_reads_like_the_job_it_was_written_from(raw):
    job = JobSpec.model_validate({**raw, "base_dir": "/base"})

    normal = normal_job(json.loads(job.model_dump_json()))

    for name in JobSpec.model_fields.keys() - {"pipeline"}:
        assert fields_of(getattr(normal, name)) == fields_of(getattr(job, name)), name
    assert [fields_of(stage) for stage in normal.pipeline] == [fields_of(stage) for stage in job.pipeline]
    assert set(fields_of(normal.pipeline[0])) == set(StageSpec.model_fields)
    assert (canonical_json(normal), public_document(normal)) == (canonical_json(job), public_document(job))
    assert job_fingerprint(normal) == job_fingerprint(job)
    assert fields_of(normal_job(json.loads(document_json(job))).sink) == fields_of(job.sink)


def test_normal_job_cannot_be_changed():
    normal = normal_job(json.loads(document_json(sample())))

    with pytest.raises(AttributeError, match="limit"):
        normal.limit = 3
    with pytest.raises(AttributeError, match="path"):
        normal.sink.path = "/elsewhere"


@given(job_files(), job_files())
@settings(max_examples=40, deadline=None)
def test_fingerprints_agree_with_the_explanation(one, other):
    kept = {"source": one["source"], "quarantine": one.get("quarantine", {}), "carryover": []}
    first, second = JobSpec.model_validate(one), JobSpec.model_validate({**other, **kept})
    changes = explain_changes(canonical_json(first), canonical_json(second))

    same = {key: job_fingerprint(first)[key] == job_fingerprint(second)[key] for key in job_fingerprint(first)}
    assert same["all"] == (not changes)
    assert same["source"] == (not any(change.startswith(("source", "limit", "shard")) for change in changes))
    assert same["pipeline"] == (not any(change.startswith(("pipeline", "carryover", "accumulators")) for change in changes))
    assert same["sink"] == (not any(change.startswith(("sink", "quarantine")) for change in changes))


def test_key_order_does_not_count():
    raw = json.loads(canonical_json(sample()))
    backwards = {key: raw[key] for key in reversed(raw)}
    assert canonical_json(JobSpec.model_validate(backwards)) == canonical_json(sample())


@pytest.mark.parametrize(
    "free",
    [
        {"name": "other"},
        {"workers": {"max": 9}},
        {"store": {"url": "redis://h"}},
        {"task": {"rows": 7}},
        {"commit_interval": "9s"},
        {"quarantine": {"max_fraction": 0.5}},
        {"quarantine": {"max_rows": 5}},
        {"base_dir": "/elsewhere"},
        {"pipeline": [
            {"map_batches": "steps:decode", "concurrency": 3, "workers_as": "threads", "name": "first"},
            {"predict": "steps:Model", "args": {"size": 3}, "num_gpus": 1, "num_cpus": 2, "batch_size": 8},
        ]},
    ],
    ids=lambda free: next(iter(free)),
)  # fmt: skip
def test_speed_and_place_may_change(free):
    changed = sample(**free)
    assert changed != sample()
    assert explain_changes(document_json(sample()), document_json(changed)) == []
    assert job_fingerprint(changed) == job_fingerprint(sample())


@pytest.mark.parametrize(
    ("change", "explanation"),
    [
        ({"carryover": "*"}, ['carryover was ["id"], is now "*"']),
        ({"limit": 5}, ["limit was null, is now 5"]),
        ({"shard": {"rows": 5}}, ['shard.rows was "auto", is now 5']),
        ({"quarantine": {"keep_columns": ["id"]}}, ['quarantine.keep_columns was [], is now ["id"]']),
        ({"sink": {"path": "/out", "options": {"level": 3}}}, ["sink.options.level was not given, is now 3"]),
        ({"sink": {"path": "/out", "options": {"a": {}}}}, ["sink.options.a was not given, is now {}"]),
        ({"accumulators": {"n": {"type": "count"}}}, ['accumulators.n.type was not given, is now "count"']),
        (
            {"pipeline": [{"map_batches": "steps:decode"}, {"predict": "steps:Other", "args": {}}]},
            ["pipeline.1.args.size was 3, is now not given", 'pipeline.1.predict was "steps:Model", is now "steps:Other"'],
        ),
    ],
)
def test_what_is_computed_may_not_change_and_the_field_is_named(change, explanation):
    assert explain_changes(canonical_json(sample()), canonical_json(sample(**change))) == explanation
    assert job_fingerprint(sample()) != job_fingerprint(sample(**change))


def test_swapped_stages_are_a_change():
    swapped = sample(pipeline=[{"predict": "steps:Model", "args": {"size": 3}}, {"map_batches": "steps:decode"}])
    assert explain_changes(canonical_json(sample()), canonical_json(swapped)) != []


@given(st.sampled_from(["", "{", "[]", "{}", '{"sink": 3}']))
@settings(deadline=None)
def test_broken_documents_are_refused(text):
    with pytest.raises(JobFileError):
        from_document(text)


def reached_by(**storage):
    """A job whose input and output lie in storage that is reached this way."""
    raw = json.loads(canonical_json(sample()))
    raw["source"]["options"] = {"delimiter": ";", "secret_key": "hidden-1", "region": "r", "storage": storage}
    raw["sink"]["options"] = {"compression": "zstd", "storage": storage}
    return JobSpec.model_validate(raw)


def test_no_credential_is_written_where_others_can_read():
    secrets = {"access_key": "hidden-2", "session_token": "hidden-3", "account_key": "hidden-4", "Password": "hidden-5"}
    job = reached_by(endpoint_url="http://here", **secrets)
    document = public_document(job)
    assert "hidden" in document_json(job)
    assert "hidden" not in json.dumps(document)
    assert document["source"]["options"] == {"delimiter": ";", "region": "r", "storage": {"endpoint_url": "http://here"}}
    assert document["sink"]["options"] == {"compression": "zstd", "storage": {"endpoint_url": "http://here"}}


def test_no_credential_of_any_driver_is_written_where_others_can_read():
    job = reached_by(
        username="u", passphrase="hidden-2", client_kwargs={"headers": {"Authorization": "hidden-3"}, "retries": [{"token": "hidden-4"}]}
    )
    document = public_document(job)
    assert "hidden" not in json.dumps(document)
    assert document["source"]["options"]["storage"] == {"username": "u", "client_kwargs": {"headers": {}, "retries": [{}]}}


def test_how_storage_is_reached_may_change():
    old, new = reached_by(endpoint_url="http://here", access_key="a"), reached_by(endpoint_url="http://there", session_token="b")
    assert job_fingerprint(old) == job_fingerprint(new)
    assert explain_changes(canonical_json(old), canonical_json(new)) == []
    assert explain_changes(json.dumps(public_document(old)), document_json(new)) == []
    elsewhere = {"path": old.sink.path, "options": {"storage": {"region": "r"}}}
    silent = JobSpec.model_validate({**json.loads(canonical_json(old)), "sink": elsewhere})
    bare = JobSpec.model_validate({**json.loads(canonical_json(old)), "sink": {"path": old.sink.path}})
    assert job_fingerprint(silent) == job_fingerprint(bare)

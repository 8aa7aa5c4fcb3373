"""Job files: what is read, what is refused, and in which words."""

from __future__ import annotations

import pytest

from antinfer.errors import JobFileError
from antinfer.spec.load import load_job

GOOD = """\
name: faces
source: {type: parquet, path: photos/, columns: [id, url, jpeg]}
pipeline:
  - map_batches: faces.steps:decode
    concurrency: [1, 8]
  - predict: faces.steps:Detector
    num_gpus: 0.25
    batch_size: 32
    args: {weights: detector.pt, threshold: 1e-3}
  - flat_map: faces.steps:crops
  - predict: faces.steps:Embedder
  - gather: {into: faces}
carryover: [id, url]
accumulators:
  per_image: {type: histogram, value: n_faces, bins: [0, 1, 2, 5, 10]}
sink: {path: s3://bucket/faces/, row_ids: true}
quarantine: {max_fraction: 0.001, keep_columns: [id, url]}
shard: {rows: auto, bytes: 64MiB}
commit_interval: 1m30s
workers: {min: 1, max: 64, on_demand: 0.6, deadline: 6h}
store: {url: rediss://user:secret@host:6379/0}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return path

    return write


def complaints(path, *args, **kwargs):
    with pytest.raises(JobFileError) as caught:
        load_job(path, *args, **kwargs)
    assert caught.value.exit_code == 2
    assert "pydantic" not in str(caught.value)
    return str(caught.value).replace(f"{path}", "job.yaml").splitlines()


def test_reads_every_part_of_the_job_file_of_the_design(write, tmp_path):
    job = load_job(write(GOOD))

    assert job.base_dir == str(tmp_path)
    assert job.source.path == (str(tmp_path / "photos"),)
    assert [(stage.kind, stage.target, stage.name) for stage in job.pipeline] == [
        ("map_batches", "faces.steps:decode", "decode"),
        ("predict", "faces.steps:Detector", "Detector"),
        ("flat_map", "faces.steps:crops", "crops"),
        ("predict", "faces.steps:Embedder", "Embedder"),
        ("gather", "", "gather"),
    ]
    assert job.pipeline[0].concurrency == (1, 8)
    assert job.pipeline[1].args == {"weights": "detector.pt", "threshold": 0.001}
    assert job.pipeline[4].into == "faces"
    assert job.sink.path == "s3://bucket/faces"
    assert (job.shard.bytes, job.commit_interval, job.workers.deadline) == (64 * 2**20, 90.0, 21600.0)
    assert "secret" not in repr(job)


def test_short_job_gets_defaults(write):
    job = load_job(write("source: {type: text, path: a.txt}\npipeline: [{map_batches: 's:f'}]\nsink: {path: out}\n"))

    assert (job.name, job.carryover, job.sink.type, job.store.url) == ("out", (), "parquet", "")
    assert (job.pipeline[0].batch_size, job.pipeline[0].concurrency, job.commit_interval, job.limit) == ("auto", "auto", "auto", None)


def test_relative_paths_are_relative_to_the_file_and_output_to_the_working_folder(write, tmp_path, monkeypatch):
    path = write(GOOD.replace("path: photos/", "path: [a/*.parquet, /abs/b, ../c, 'gs://x/y/']"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    job = load_job(path, ["sink.path=out"])
    assert job.source.path == (f"{tmp_path}/a/*.parquet", "/abs/b", f"{tmp_path.parent}/c", "gs://x/y")
    assert job.sink.path == f"{tmp_path}/out"
    assert load_job(path, output="out").sink.path == f"{elsewhere}/out"


def test_folder_stands_for_its_job_file(write, tmp_path):
    assert load_job(write(GOOD).parent) == load_job(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("workers.max=4", lambda job: job.workers.max == 4),
        ("workers.deadline=null", lambda job: job.workers.deadline is None),
        ("pipeline.1.batch_size=64", lambda job: job.pipeline[1].batch_size == 64),
        ("pipeline.1.args.weights=other.pt", lambda job: job.pipeline[1].args["weights"] == "other.pt"),
        ("carryover=[id]", lambda job: job.carryover == ("id",)),
        ('carryover="*"', lambda job: job.carryover == "*"),
        ("limit=10", lambda job: job.limit == 10),
        ("store.url=redis://h?a=b", lambda job: job.store.url == "redis://h?a=b"),
    ],
)
def test_overrides(write, override, read):
    path = write(GOOD)
    assert not read(load_job(path))
    assert read(load_job(path, [override]))


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("name: faces", "nmae: faces", "job.yaml:1: nmae: unknown key; allowed: name, source, pipeline, *; did you mean 'name'?"),
        (
            "type: parquet",
            "type: parqet",
            "job.yaml:2: source.type: must be one of parquet, csv, jsonl, arrow, text, files, not 'parqet'; did you mean 'parquet'?",
        ),
        ("columns: [id, url, jpeg]", "columns: 3", "job.yaml:2: source.columns: must be a list of column names, not 3"),
        ("columns: [id, url, jpeg]", "columns: [id, url, id]", "job.yaml:2: source.columns: names 'id' more than once"),
        (
            "concurrency: [1, 8]",
            "concurrency: [8, 1]",
            "job.yaml:5: pipeline.0.concurrency: must be auto, a whole number of at least 1, or [min, max] *",
        ),
        ("concurrency: [1, 8]", "concurency: 8", "job.yaml:5: pipeline.0.concurency: unknown key; allowed: *; did you mean 'concurrency'?"),
        ("concurrency: [1, 8]", "num_gpus: 1", "job.yaml:4: pipeline.0: num_gpus: only predict stages own GPUs; *"),
        (
            "map_batches: faces.steps:decode",
            "map_batch: faces.steps:decode",
            "job.yaml:4: pipeline.0: a stage needs one of map_batches, *; did you mean 'map_batches'?",
        ),
        (
            "map_batches: faces.steps:decode",
            "map_batches: decode",
            "job.yaml:4: pipeline.0: map_batches must name user code as module:name, *",
        ),
        ("num_gpus: 0.25", "filter: a:b", "job.yaml:6: pipeline.1: a stage is exactly one of *; this one is predict and filter"),
        ("num_gpus: 0.25", "num_gpus: -1", "job.yaml:7: pipeline.1.num_gpus: must be at least 0.0, not -1"),
        (
            "num_gpus: 0.25",
            "num_gpus: 1e-9",
            "job.yaml:7: pipeline.1.num_gpus: must be 0, a share of one GPU from 0.01 *, not 1e-09",
        ),
        ("num_gpus: 0.25", "num_gpus: 1.5", "job.yaml:7: pipeline.1.num_gpus: must be 0, a share of one GPU *, not 1.5"),
        ("num_gpus: 0.25", "num_cpus: 0", "job.yaml:7: pipeline.1.num_cpus: must be above 0.0, not 0"),
        ("num_gpus: 0.25", "workers_as: threads", "job.yaml:6: pipeline.1: workers_as: a predictor is always a process; *"),
        (
            "num_gpus: 0.25",
            "name: decode\n  - map_batches: x:y\n    name: decode",
            "job.yaml:3: pipeline: two stages are named 'decode'; *",
        ),
        (
            "batch_size: 32",
            "batch_size: many",
            "job.yaml:8: pipeline.1.batch_size: must be auto or a whole number of at least 1, not 'many'",
        ),
        ("threshold: 1e-3", "threshold: .inf", "job.yaml:9: pipeline.1.args: threshold: inf has no JSON form; *"),
        ("  - flat_map: faces.steps:crops\n", "", "job.yaml:3: pipeline: stage 3 gathers what no flat_map before it has spread out"),
        ("gather: {into: faces}", "gather: faces", "job.yaml:12: pipeline.4: gather must be written as gather: {into: column}, *"),
        (
            "gather: {into: faces}",
            "gather: {into: faces}\n    batch_size: 3",
            "job.yaml:12: pipeline.4: gather takes only into (a column name) and name, not batch_size",
        ),
        (
            "carryover: [id, url]",
            "carryover: [id, ulr]",
            "job.yaml:1: carryover: 'ulr' is not among source.columns (id, url, jpeg); did you mean 'url'?",
        ),
        (
            "type: histogram",
            "type: histogramm",
            "job.yaml:14: accumulators: per_image.type: 'histogramm' is not one of *; did you mean 'histogram'?",
        ),
        (
            "sink: {path: s3://bucket/faces/, row_ids: true}",
            "sink: out",
            "job.yaml:16: sink: must be a mapping with the keys type, path, row_ids, options, not 'out'",
        ),
        ("sink: {path: s3://bucket/faces/, row_ids: true}", "", "job.yaml:1: sink: is missing (*)"),
        ("row_ids: true", "row_ids: maybe", "job.yaml:16: sink.row_ids: must be true or false, not 'maybe'"),
        ("max_fraction: 0.001", "max_fraction: 2", "job.yaml:17: quarantine.max_fraction: must be at most 1.0, not 2"),
        ("bytes: 64MiB", "bytes: 64 bananas", "job.yaml:18: shard.bytes: must be auto or a size such as 64MB, *, not '64 bananas'"),
        ("commit_interval: 1m30s", "commit_interval: soon", "job.yaml:19: commit_interval: must be a duration such as 30s, *, not 'soon'"),
        ("max: 64", "max: 0", "job.yaml:20: workers.max: must be at least 1, not 0"),
        ("min: 1", "min: 65", "job.yaml:20: workers: max (64) must not be below min (65)"),
        ("url: rediss:", "url: redi:", "job.yaml:21: store.url: must start with redis://, *; did you mean 'redis'?"),
        ("name: faces", "base_dir: /", "job.yaml:1: base_dir: unknown key; *"),
        ("name: faces", "name: faces\nname: faces", "job.yaml:2: name is given twice"),
        ("name: faces", "name: [faces", "job.yaml:2: not valid YAML: *"),
    ],
)
def test_each_mistake_gets_one_line_with_place_field_and_way_out(write, old, new, complaint):
    assert old in GOOD
    lines = complaints(write(GOOD.replace(old, new)))

    head, star, tail = complaint.partition("*")
    middle, second_star, tail = tail.partition("*") if star else ("", "", "")
    assert len(lines) == 1, lines
    assert lines[0].startswith(head)
    assert middle in lines[0]
    assert lines[0].endswith(tail if second_star else middle) or star
    assert star or lines[0] == complaint
    assert "secret" not in lines[0]


def test_all_mistakes_are_named_at_once(write):
    lines = complaints(write("source: {type: cvs}\npipeline: [3, {predict: 'a:b', batch_size: 0}]\nsnik: {}\n"))

    assert [line.split(": ")[1] for line in lines] == [
        "source.type", "source.path", "pipeline.0", "pipeline.1.batch_size", "sink", "snik",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("workers.max=none", "--set workers.max=none: workers.max: must be a whole number, not 'none'"),
        (
            "workers.mx=3",
            (
                "--set workers.mx=3: workers.mx: unknown key; "
                "allowed: min, max, on_demand, deadline, budget, surge, classes; did you mean 'max'?"
            ),
        ),
        ("pipeline.7.name=x", "--set pipeline.7.name=x: pipeline is a list; '7' is not one of its indexes 0 to 4"),
        ("pipeline.x=1", "--set pipeline.x=1: pipeline is a list; 'x' is not one of its indexes 0 to 4"),
        ("name.first=x", "--set name.first=x: name is 'faces', which has no keys"),
        ("workers", "--set workers: must be key=value, such as pipeline.0.batch_size=64 or workers.max=4"),
        ("workers..max=3", "--set workers..max=3: must be key=value, such as pipeline.0.batch_size=64 or workers.max=4"),
    ],
)
def test_wrong_override_is_blamed_on_the_option_not_on_the_file(write, override, complaint):
    assert complaints(write(GOOD), [override]) == [complaint]


def test_missing_file_names_the_near_one(write, tmp_path):
    write(GOOD)
    assert complaints(tmp_path / "jobs.yaml")[0].endswith("did you mean 'job.yaml'?")
    assert "no folder" in complaints(tmp_path / "no" / "job.yaml")[0]


@pytest.mark.parametrize("text", ["", "just text", "[1, 2]"])
def test_file_that_is_no_mapping(write, text):
    assert "it needs the keys source, pipeline and sink" in complaints(write(text))[0]


def test_binary_file_is_refused_in_words(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot read the job file" in complaints(path)[0]

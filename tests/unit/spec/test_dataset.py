"""The Python form: the same job as the file, and clear refusals at the call that is wrong."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import antinfer as ai
from antinfer.errors import JobFileError, UsageError, UserCodeError
from antinfer.spec.canonical import canonical_json, to_yaml
from antinfer.spec.load import load_job
from antinfer.spec.references import reference_of
from antinfer.spec.usercode import resolve

ROOT = Path(__file__).parents[3]


def decode(batch):
    return batch


class Model:
    def __init__(self, size=1):
        self.size = size

    def __call__(self, batch):
        return batch


class Own:
    pass


HERE = f"{decode.__module__}"

YAML = f"""\
name: faces
source: {{type: parquet, path: photos, columns: [id, url, jpeg]}}
pipeline:
  - map_batches: {HERE}:decode
    concurrency: [1, 4]
    args: {{mode: fast}}
  - predict: {HERE}:Model
    num_gpus: 0.25
    batch_size: 32
    columns: [image, id]
    args: {{size: 3}}
  - flat_map: {HERE}:decode
    columns: [image]
  - filter: {HERE}:decode
    columns: [score]
  - predict: {HERE}:Model
    batch_format: torch
  - gather: {{into: faces}}
carryover: [id, url]
accumulators:
  per_image: {{type: histogram, value: n_faces, bins: [0, 1, 2, 5]}}
  mine: {{type: "{HERE}:Own"}}
sink: {{type: jsonl, path: s3://bucket/faces/, row_ids: true, options: {{level: 3}}}}
quarantine: {{max_fraction: 0.001, keep_columns: [id]}}
shard: {{bytes: 64MB}}
task: {{rows: 100}}
commit_interval: 30s
workers: {{min: 2, max: 64, on_demand: 0.6, deadline: 6h}}
store: {{url: "redis://host", durability: always}}
limit: 1000
"""


def faces():
    return (
        ai.read_parquet("photos", columns=["id", "url", "jpeg"])
        .map_batches(decode, concurrency=(1, 4), fn_kwargs={"mode": "fast"})
        .map_batches(Model, num_gpus=0.25, batch_size=32, columns=["image", "id"], fn_constructor_kwargs={"size": 3})
        .flat_map(decode, columns=["image"])
        .filter(decode, columns=["score"])
        .predict(Model, batch_format="torch", batch_size=None)
        .gather("faces")
        .carryover("id", "url")
        .accumulate("per_image", type="histogram", value="n_faces", bins=(0, 1, 2, 5))
        .accumulate("mine", type=Own)
        .quarantine(max_fraction=0.001)
        .quarantine(keep_columns=["id"])
        .shard(bytes="64MB")
        .task(rows=100)
        .commit_interval("30s")
        .workers(min=2, max=64, on_demand=0.6, deadline="6h")
        .store("redis://host", durability="always")
        .limit(1000)
        .write_jsonl("s3://bucket/faces/", name="faces", row_ids=True, level=3)
    )


def test_python_and_yaml_say_the_same_job(tmp_path, monkeypatch):
    (tmp_path / "job.yaml").write_text(YAML)
    monkeypatch.chdir(tmp_path)
    job, loaded = faces(), load_job("job.yaml")

    assert job.to_json() == canonical_json(loaded)
    assert job.spec == loaded.model_copy(update={"base_dir": job.spec.base_dir})
    (tmp_path / "again.yaml").write_text(job.to_yaml())
    assert load_job("again.yaml") == loaded
    assert to_yaml(loaded).splitlines()[1:] == job.to_yaml().splitlines()[1:]


def test_references_are_found_again_from_the_jobs_folder():
    spec = faces().spec
    assert resolve(spec.pipeline[0].target, spec.base_dir) is decode
    assert resolve(spec.pipeline[1].target, spec.base_dir) is Model


def test_builder_is_immutable():
    start = ai.read_csv(["a.csv", Path("/b.csv")], delimiter=";")
    one, two = start.map_batches(decode), start.predict(Model).carryover("*")

    assert [stage.kind for stage in one.write_parquet("/o").spec.pipeline] == ["map_batches"]
    spec = two.write_arrow("/o").spec
    assert ([stage.kind for stage in spec.pipeline], spec.carryover, spec.sink.type) == (["predict"], "*", "arrow")
    assert spec.source.path == (f"{Path.cwd()}/a.csv", "/b.csv") and spec.source.options == {"delimiter": ";"}
    assert one.write_parquet("/o").spec.carryover == ()


def test_every_reader_names_its_format():
    readers = {
        "parquet": ai.read_parquet,
        "csv": ai.read_csv,
        "jsonl": ai.read_json,
        "arrow": ai.read_arrow,
        "text": ai.read_text,
        "files": ai.read_files,
    }
    assert {name: read("/x").map_batches("a:b").write_parquet("/o").spec.source.type for name, read in readers.items()} == {
        name: name for name in readers
    }


SOURCE = ai.read_parquet("/data", columns=["id"])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: ai.read_parquet([]), "job: source.path: must be a path or a list of paths"),
        (lambda: ai.read_csv("/x", delimiter=object()), "job: source.options: delimiter: a object cannot be sent to a worker"),
        (lambda: SOURCE.map_batches(decode, batch_size=0), "job: pipeline.0.batch_size: must be auto or a whole number"),
        (lambda: SOURCE.map_batches(decode, batch_format="tensor"), "job: pipeline.0.batch_format: must be one of * not 'tensor'"),
        (lambda: SOURCE.map_batches(decode, num_gpus=1), "job: pipeline.0: num_gpus: only predict stages own GPUs"),
        (
            lambda: SOURCE.map_batches(decode, fn_kwargs={"path": Path("/w")}),
            "job: pipeline.0.args: path: a PosixPath cannot * pass the string '/w'",
        ),
        (lambda: SOURCE.predict(Model, args={"a": [{"b": {1, 2}}]}), "job: pipeline.0.args: a.0.b: a set cannot be sent to a worker"),
        (lambda: SOURCE.predict(Model, args={"a": {1: 2}}), "job: pipeline.0.args: a.1: this key is a int; only text can be a key"),
        (lambda: SOURCE.predict(Model, args={"a": float("nan")}), "job: pipeline.0.args: a: nan has no JSON form"),
        (lambda: SOURCE.map_batches(decode, fn_constructor_kwargs={"a": 1}), "map_batches: a function takes fn_kwargs"),
        (lambda: SOURCE.map_batches(Model, fn_kwargs={"a": 1}), "map_batches: a class takes fn_constructor_kwargs"),
        (lambda: SOURCE.predict(decode), "predict needs a class"),
        (lambda: SOURCE.map_batches("decode"), "job: pipeline.0: map_batches must name user code as module:name"),
        (lambda: SOURCE.carryover("ids"), "job: carryover: 'ids' is not among source.columns (id); did you mean 'id'?"),
        (lambda: SOURCE.accumulate("a", type="auorc"), "job: accumulators: a.type: 'auorc' is not one of * did you mean 'auroc'?"),
        (lambda: SOURCE.quarantine(max_fraction=3), "job: quarantine.max_fraction: must be at most 1.0, not 3"),
        (lambda: SOURCE.commit_interval("soon"), "job: commit_interval: must be a duration"),
        (lambda: SOURCE.workers(min=3, max=2), "job: workers: max (2) must not be below min (3)"),
        (lambda: SOURCE.limit(0), "job: limit: must be at least 1, not 0"),
        (lambda: SOURCE.write_parquet("/o"), "job: pipeline: must have at least one entry"),
        (lambda: SOURCE.map_batches(decode).gather("x").write_parquet("/o"), "job: pipeline: stage 1 gathers what no flat_map"),
    ],
)
def test_mistakes_are_refused_where_they_are_made(call, complaint):
    with pytest.raises(UsageError) as caught:
        call()
    head, _, tail = complaint.partition("*")
    assert str(caught.value).startswith(head)
    assert tail in str(caught.value)
    assert isinstance(caught.value, JobFileError) or not complaint.startswith("job")


def inner_function():
    def inside(batch):
        return batch

    return inside


@pytest.mark.parametrize(
    ("target", "complaint", "way_out"),
    [
        (lambda batch: batch, "a lambda has no name", "with def"),
        (inner_function(), "'inside' is defined inside 'inner_function'", "fn_kwargs"),
        (Model(3), "not a Model object", "map_batches(Model, fn_constructor_kwargs={...})"),
        (functools.partial(decode, 3), "not a partial object", "fn_constructor_kwargs"),
    ],
)
def test_code_that_workers_could_not_import(target, complaint, way_out):
    with pytest.raises(UserCodeError) as caught:
        SOURCE.map_batches(target)
    assert complaint in str(caught.value)
    assert way_out in caught.value.hint


def test_name_that_means_something_else_by_now(monkeypatch):
    mine = decode
    monkeypatch.setattr(sys.modules[__name__], "decode", lambda batch: batch)
    with pytest.raises(UserCodeError, match="would import something else"):
        reference_of(mine)


SCRIPT = """\
import antinfer as ai
import beside_script

def decode(batch): return batch
class Model:
    def __call__(self, batch): return batch

job = ai.read_text("in").map_batches(decode).predict(Model).flat_map(beside_script.split).write_parquet("out")
if __name__ == "__main__":
    print(job.spec.model_dump_json())
"""


def python(*args, folder, **kwargs):
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **kwargs,
    )


def test_script_names_its_own_functions_by_file(tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "beside_script.py").write_text("def split(row): return [row]\n")
    done = python("script.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)

    assert [next(iter(stage.values())) for stage in spec["pipeline"]] == [
        f"file:{tmp_path}/script.py:decode", f"file:{tmp_path}/script.py:Model", "beside_script:split",
    ]  # fmt: skip
    assert spec["base_dir"] == str(tmp_path)
    assert (spec["source"]["path"], spec["sink"]["path"]) == ([f"{tmp_path}/in"], f"{tmp_path}/out")
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert resolve(spec["pipeline"][0]["map_batches"], spec["base_dir"])({"a": 1}) == {"a": 1}


def test_module_run_with_dash_m_keeps_its_name(tmp_path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "script.py").write_text(SCRIPT.replace("import beside_script", "from . import beside_script"))
    (tmp_path / "pack" / "beside_script.py").write_text("def split(row): return [row]\n")
    done = python("-m", "pack.script", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    spec = json.loads(done.stdout)

    assert [next(iter(stage.values())) for stage in spec["pipeline"]] == [
        "pack.script:decode",
        "pack.script:Model",
        "pack.beside_script:split",
    ]
    assert spec["base_dir"] == str(tmp_path)


def test_code_from_two_folders_is_named_by_file_where_needed(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "beside_script.py").write_text("def split(row): return [row]\n")
    (tmp_path / "script.py").write_text("import sys; sys.path.append('lib')\n" + SCRIPT)
    done = python("script.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pipeline"][2]["flat_map"] == f"file:{tmp_path}/lib/beside_script.py:split"


@pytest.mark.parametrize("args", [["-"], ["-i"]], ids=["stdin", "interactive"])
def test_function_typed_into_a_session_gets_the_way_out(tmp_path, args):
    text = "import antinfer as ai\ndef decode(b): return b\n\nds = ai.read_text('in').map_batches(decode)\n"
    done = python(*args, folder=tmp_path, input=text)
    assert "'decode' was defined in a notebook or an interactive session" in done.stderr


def test_plan_looks_at_the_input(tmp_path):
    (tmp_path / "a.csv").write_text("id,x\n1,2\n")
    figures = ai.read_csv(tmp_path / "a.csv").map_batches(decode).write_parquet(tmp_path / "out").plan()
    assert figures["files"] == 1 and [name for name, _ in figures["columns"]] == ["id", "x"]
    assert not (tmp_path / "out").exists()


def test_run_reached_while_a_worker_imports_the_script_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "unguarded.py").write_text(
        "import antinfer as ai\ndef f(b): return b\nai.read_text('in').map_batches('unguarded:f').write_parquet('out').run()\n"
    )
    with pytest.raises(UserCodeError, match="the job would start itself") as caught:
        resolve(f"file:{tmp_path}/unguarded.py:f", str(tmp_path))
    assert "__main__" in caught.value.hint

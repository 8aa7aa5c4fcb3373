"""Random jobs, and one to change."""

from __future__ import annotations

from hypothesis import strategies as st

from antinfer.spec.normal import STAGE_KINDS
from antinfer.spec.schema import JobSpec

NAMES = st.text("abcXYZ_", min_size=1, max_size=4)
TEXTS = st.text("noy01. äß中#:-'\"{}[],&*!|>%@`\\=~", min_size=1, max_size=6)
"""Short, and full of what YAML gives a meaning to."""
PATHS = st.one_of(
    st.builds("/{}/{}".format, NAMES, NAMES), st.builds("s3://{}/{}".format, NAMES, NAMES), st.builds("/{}/*.{}".format, NAMES, NAMES)
)
COUNTS = st.just("auto") | st.integers(1, 10**6)
PAIRS = st.tuples(st.integers(1, 9), st.integers(9, 99)).map(list)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
OPTIONS = st.dictionaries(TEXTS, JSON, max_size=2)


@st.composite
def stages(draw, kind):
    stage = {kind: draw(st.builds("{}.{}:{}".format, NAMES, NAMES, NAMES))}
    optional = {"concurrency": COUNTS | PAIRS, "num_cpus": st.floats(0.1, 8), "batch_size": COUNTS, "args": OPTIONS}
    if kind == "predict":
        optional["num_gpus"] = st.floats(0.01, 1) | st.integers(0, 8).map(float)
    else:
        optional["workers_as"] = st.sampled_from(["auto", "threads", "processes"])
    return {**stage, **draw(st.fixed_dictionaries({}, optional=optional))}


@st.composite
def job_files(draw):
    """Draw the value of a valid job file."""
    pipeline, depth = [], 0
    for kind in draw(st.lists(st.sampled_from(STAGE_KINDS), min_size=1, max_size=5)):
        if kind == "gather" and not depth:
            continue
        depth += {"flat_map": 1, "gather": -1}.get(kind, 0)
        if kind == "gather":
            pipeline.append({"gather": {"into": draw(NAMES)}})
        elif kind == "parallel":
            branch = st.lists(stages("map_batches") | stages("filter"), min_size=1, max_size=2)
            pipeline.append({"parallel": draw(st.dictionaries(TEXTS, branch, min_size=1, max_size=2)), "when": draw(st.just("") | NAMES)})
        else:
            pipeline.append(draw(stages(kind)))
    columns = draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True))
    some = st.lists(st.sampled_from(columns), unique=True, max_size=3)
    job = {
        "source": {
            "type": draw(st.sampled_from(["parquet", "csv"])),
            "path": draw(PATHS | st.lists(PATHS, min_size=1, max_size=3)),
            "columns": columns,
        },
        "pipeline": pipeline or [draw(stages("predict"))],
        "sink": {"path": draw(PATHS.map(lambda path: f"{path}.out")), "row_ids": draw(st.booleans()), "options": draw(OPTIONS)},
    }
    optional = {
        "name": TEXTS,
        "carryover": st.just("*") | some,
        "accumulators": st.dictionaries(TEXTS, st.builds(lambda rest: {**rest, "type": "mean"}, OPTIONS), max_size=2),
        "quarantine": st.fixed_dictionaries({"max_fraction": st.floats(0, 1), "keep_columns": some}),
        "shard": st.fixed_dictionaries({"rows": COUNTS, "bytes": st.integers(1, 2**40) | st.sampled_from(["64MB", "1GiB"])}),
        "commit_interval": st.sampled_from(["auto", "30s", "1h30m", 2.5]),
        "workers": st.fixed_dictionaries(
            {"min": st.integers(0, 3), "max": st.integers(3, 9), "deadline": st.none() | st.just("6h")},
            optional={
                "surge": st.none() | st.integers(0, 5),
                "budget": st.none() | st.just({"gpu_hours": 2.5}),
                "classes": st.just({"preemptible": {"gpus": 2, "memory": "4GiB", "max_memory": "16GiB"}}),
            },
        ),
        "store": st.just({"url": "redis://:secret@host/0", "durability": "waitaof"}),
        "limit": st.integers(1, 10**9),
    }
    return {**job, **draw(st.fixed_dictionaries({}, optional=optional))}


def sample(**changes: object) -> JobSpec:
    """Return a small job; `changes` replace top-level keys."""
    job = {
        "source": {"type": "parquet", "path": "/data", "columns": ["id", "x"]},
        "pipeline": [{"map_batches": "steps:decode"}, {"predict": "steps:Model", "args": {"size": 3}}],
        "sink": {"path": "/out"},
        "carryover": ["id"],
    }
    return JobSpec.model_validate({**job, **changes})

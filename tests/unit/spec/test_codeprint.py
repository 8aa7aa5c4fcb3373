"""Fingerprints of user code, from its source alone."""

from __future__ import annotations

import sys

import pytest

from antinfer.errors import UserCodeError
from antinfer.spec.codeprint import code_files, code_fingerprint, explain_code_changes
from tests.unit.spec.jobs import sample

FILES = {
    "steps.py": "import os\nimport helpers\nfrom pkg.inner import thing\n\ndef decode(batch):\n    import late\n",
    "helpers.py": "import steps\nraise RuntimeError('never imported')\n",
    "late.py": "",
    "pkg/__init__.py": "from . import beside\n",
    "pkg/beside.py": "",
    "pkg/inner.py": "from ..nothing import x\nfrom .deep import thing\n",
    "pkg/deep/__init__.py": "from .thing import thing\nfrom ..aside import y\n",
    "pkg/deep/thing.py": "def broken(:\n",
    "pkg/aside.py": "",
    "unrelated.py": "",
    "metric.py": "",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_follows_imports_under_the_jobs_folder_without_running_anything(folder):
    job = sample(base_dir=str(folder), accumulators={"own": {"type": "metric:Own"}})
    assert set(code_files(job)) == set(FILES) - {"unrelated.py"}
    assert "helpers" not in sys.modules and "metric" not in sys.modules


def test_changes_are_named(folder):
    job = sample(base_dir=str(folder))
    files, whole = code_files(job), code_fingerprint(job)
    (folder / "unrelated.py").write_text("x = 1\n")
    assert (code_files(job), code_fingerprint(job)) == (files, whole)

    (folder / "late.py").write_text("x = 1\n")
    (folder / "helpers.py").write_text("import fresh\n")
    (folder / "fresh.py").write_text("")
    (folder / "pkg" / "__init__.py").write_text("")
    assert code_fingerprint(job) != whole
    assert explain_code_changes(files, code_files(job)) == [
        "fresh.py was added",
        "helpers.py was changed",
        "late.py was changed",
        "pkg/__init__.py was changed",
        "pkg/beside.py was removed",
    ]


def test_arguments_and_targets_count_but_speed_does_not(folder):
    job = sample(base_dir=str(folder))
    decode, model = {"map_batches": "steps:decode"}, {"predict": "steps:Model", "args": {"size": 3}}
    assert code_fingerprint(sample(base_dir=str(folder), pipeline=[decode, {**model, "args": {"size": 4}}])) != code_fingerprint(job)
    assert code_fingerprint(sample(base_dir=str(folder), pipeline=[decode, {**model, "predict": "steps:Other"}])) != code_fingerprint(job)
    assert code_fingerprint(sample(base_dir=str(folder), pipeline=[decode, {**model, "batch_size": 9}])) == code_fingerprint(job)


def test_script_counts_with_what_lies_beside_it(folder):
    job = sample(base_dir=str(folder), pipeline=[{"map_batches": f"file:{folder}/steps.py:decode"}])
    assert set(code_files(job)) == set(FILES) - {"unrelated.py", "metric.py"}


def test_unreadable_script_is_named(folder):
    with pytest.raises(UserCodeError, match=r"gone\.py"):
        code_files(sample(base_dir=str(folder), pipeline=[{"map_batches": f"file:{folder}/gone.py:f"}]))


def test_installed_code_is_not_the_users(folder):
    assert code_files(sample(base_dir=str(folder), pipeline=[{"map_batches": "json:loads"}])) == {}

"""Nothing that was read or received is unpickled: whoever wrote a pickle runs code where it is read.

The contract "Nothing is pickled" forbids imports between modules; this looks at calls too, and at imports that are hidden in them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICKLERS = {"pickle", "_pickle", "pickletools", "cloudpickle", "dill", "joblib", "marshal", "shelve", "multiprocessing"}
"""Modules that pickle, or read what runs as code; the last hands pickles to other processes."""
NAMES = {"read_pickle", "to_pickle", "PyExtensionType", "load_pickle", "unsafe_load", "full_load"}
IMPORTERS = {"import_module", "__import__", "find_spec", "importorskip"}
ALLOWED = {
    # Processes of one search on one machine; what they hand each other never leaves it.
    "antinfer/testing/sim/search.py": ["multiprocessing"],
}


def pickling(source: str) -> list[str]:
    """Return what in `source` pickles or unpickles."""
    return [found for node in ast.walk(ast.parse(source)) for found in _of(node)]


def _of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if PICKLERS & set(alias.name.split(".")))
    elif isinstance(node, ast.ImportFrom):
        names = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        yield from sorted(names & (PICKLERS | NAMES))
    elif isinstance(node, ast.Attribute) and node.attr in NAMES | {"cloudpickle", "pickle"}:
        yield node.attr
    elif isinstance(node, ast.Call):
        yield from _of_call(node)


def _of_call(call: ast.Call) -> Iterator[str]:
    given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
    called = ast.unparse(call.func)
    name = called.rpartition(".")[2]
    if "allow_pickle" in given and given["allow_pickle"] is not False:
        yield "allow_pickle"
    # Before 2.6 the other way round is its default.
    if called == "torch.load" and given.get("weights_only") is not True:
        yield "torch.load"
    if name in IMPORTERS and call.args and isinstance(call.args[0], ast.Constant):
        yield from sorted(PICKLERS & set(str(call.args[0].value).split(".")))


def test_nothing_of_ours_pickles() -> None:
    files = [path for folder in ("antinfer", "master", "worker", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 300
    found = {str(path.relative_to(ROOT)): pickling(path.read_text(encoding="utf-8")) for path in files}
    assert {name: what for name, what in found.items() if what} == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import cloudpickle as harmless",
        "def late():\n    import marshal",
        "from dill import loads",
        "from ray import cloudpickle",
        "import multiprocessing.shared_memory",
        "import ray\nray.cloudpickle.loads(b'')",
        "importlib.import_module('pickle')",
        "__import__('shelve')",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "pd.read_pickle(path)",
        "from pandas import read_pickle",
        "yaml.unsafe_load(text)",
    ],
)
def test_it_is_found(source: str) -> None:
    assert pickling(source)


def test_what_is_harmless_is_not() -> None:
    assert not pickling("np.load(path)\nnp.load(path, allow_pickle=False)\ntorch.load(path, weights_only=True)\n'pickle'  # pickle")

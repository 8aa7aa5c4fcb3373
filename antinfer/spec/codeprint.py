"""Fingerprint of the user's code, made by reading source files, never by importing them: the master does this, and runs no user code.

Counted are the modules that stages (and a user's accumulators) name and, from there, every module under the job's folder that they import,
directly or not. Installed packages are not the user's code.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from antinfer.errors import UserCodeError
from antinfer.spec.normal import all_stages
from antinfer.spec.usercode import FILE_PREFIX, module_file, split_reference

if TYPE_CHECKING:
    from antinfer.spec.schema import JobSpec


def code_files(spec: JobSpec) -> dict[str, str]:
    """Return sha256 hex digests of the source files that the job's user code consists of, by path relative to `base_dir`, sorted.

    Raises UserCodeError when a file cannot be read. A file with a syntax error counts, but its imports are unknown.
    """
    found: dict[str, str] = {}
    todo: list[tuple[str, str, str]] = []
    for target in _targets(spec):
        module, _ = split_reference(target)
        if module.startswith(FILE_PREFIX):
            script = module.removeprefix(FILE_PREFIX)
            todo.append((script, "", os.path.dirname(script)))
        else:
            todo += _files_of(module, spec.base_dir)
    while todo:
        path, name, root = todo.pop()
        key = os.path.relpath(path, spec.base_dir) if spec.base_dir else path
        if key in found:
            continue
        try:
            with open(path, "rb") as file:
                source = file.read()
        except OSError as error:
            raise UserCodeError(f"cannot read the user code {path}: {error}") from error
        found[key] = hashlib.sha256(source).hexdigest()
        for imported in _imports(source, name, is_package=os.path.basename(path) == "__init__.py"):
            todo += _files_of(imported, root)
    return dict(sorted(found.items()))


def code_fingerprint(spec: JobSpec) -> str:
    """Return one sha256 hex digest over the user's source files, what each stage names, and the arguments it is given."""
    stages = [[stage.kind, stage.target, stage.into, stage.args, stage.on_gpu, stage.on_gpu_args] for stage in all_stages(spec.pipeline)]
    text = json.dumps([code_files(spec), stages], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def explain_code_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Say which files differ between two results of `code_files`; empty when the code is the same."""
    return [
        f"{path} was {'added' if path not in old else 'removed' if path not in new else 'changed'}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def _targets(spec: JobSpec) -> Iterator[str]:
    yield from (target for stage in all_stages(spec.pipeline) for target in (stage.target, stage.on_gpu) if target)
    for options in spec.accumulators.values():
        if ":" in str(options["type"]):
            yield str(options["type"])


def _files_of(name: str, root: str) -> list[tuple[str, str, str]]:
    """Return (path, module name, root) of module `name` and the packages around it, as far as they lie under `root`."""
    parts = name.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return [(path, each, root) for each in names if (path := module_file(each, root)) is not None]


def _imports(source: bytes, name: str, *, is_package: bool) -> Iterator[str]:
    """Yield the absolute names of what a module may import; for ``from a import b`` both ``a`` and ``a.b``."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        # Whoever imports the file gets to see the error; here its bytes are enough.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            around = name.split(".") if name else []
            kept = around[: len(around) - node.level + is_package] if node.level else []
            base = ".".join([*kept, *([node.module] if node.module else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)

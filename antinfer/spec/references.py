"""Names for the functions and classes that the Python API is given, by which another process can find them again."""

from __future__ import annotations

import inspect
import os
import sys
from types import ModuleType
from typing import Any

from antinfer.errors import UserCodeError
from antinfer.spec.usercode import FILE_PREFIX

_WAY_OUT = "Put it at the top level of a .py file and import it from there: from steps import {name}."


def reference_of(target: Any) -> str:
    """Return the name by which workers import `target`: ``module:name``, or ``file:/abs/script.py:name`` for what a script defines itself.

    Raises:
        UserCodeError: Another process could not find it: a lambda, a function inside a function, an instance, or something typed into a
            notebook or an interactive session. The hint says the way out.
    """
    if not (inspect.isfunction(target) or inspect.isclass(target) or inspect.isbuiltin(target)):
        kind = type(target).__name__
        raise UserCodeError(
            f"a stage needs a function or a class, not a {kind} object",
            hint=f"Pass the class and its arguments apart: map_batches({kind}, fn_constructor_kwargs={{...}}).",
        )
    name, module = target.__qualname__, sys.modules.get(target.__module__ or "")
    if "<lambda>" in name:
        raise UserCodeError("a lambda has no name by which a worker could import it", hint="Write it as a function with def, at top level.")
    if "<locals>" in name:
        inner = target.__name__
        raise UserCodeError(
            f"{inner!r} is defined inside {name.split('.<locals>')[0]!r}, where a worker cannot import it",
            hint="Move it to the top level of the file; give what it needs from outside as fn_kwargs.",
        )
    if module is None or _look_up(module, name) is not target:
        raise UserCodeError(
            f"{name!r} is not what module {target.__module__!r} holds under that name (any more), so a worker would import something else",
            hint=_WAY_OUT.format(name=name.split(".")[0]),
        )
    if module.__name__ != "__main__":
        return f"{module.__name__}:{name}"
    spec = module.__spec__
    if spec is not None and spec.name != "__main__":
        # Started by ``python -m package.module``: the real name keeps relative imports alive.
        return f"{spec.name}:{name}"
    return f"{FILE_PREFIX}{_script(module, target, name)}:{name}"


def folder_of(target: Any) -> str | None:
    """Return the folder from which the module of `target` can be imported, None when it has no file (built into Python)."""
    module = sys.modules[target.__module__]
    file: str | None = getattr(module, "__file__", None)
    if file is None:
        return None
    name = module.__spec__.name if module.__name__ == "__main__" and module.__spec__ is not None else module.__name__
    levels = name.count(".") + (os.path.basename(file) == "__init__.py")
    folder = os.path.dirname(os.path.abspath(file))
    return os.path.normpath(os.path.join(folder, *[".."] * levels))


def _script(module: ModuleType, target: Any, name: str) -> str:
    file: str | None = getattr(module, "__file__", None)
    source = inspect.getsourcefile(target) if inspect.isclass(target) else getattr(getattr(target, "__code__", None), "co_filename", None)
    if file is None or not os.path.isfile(file) or source is None or not os.path.isfile(source):
        raise UserCodeError(
            f"{name!r} was defined in a notebook or an interactive session, which workers cannot import",
            hint=_WAY_OUT.format(name=name.split(".")[0]),
        )
    return os.path.abspath(file)


def _look_up(module: ModuleType, dotted: str) -> Any:
    found: Any = module
    for part in dotted.split("."):
        found = getattr(found, part, None)
    return found

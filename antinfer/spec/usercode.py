"""Finding user code by its name, and naming user code that somebody holds.

A name is ``module:attribute``, looked up in the job's folder first, or ``file:/abs/script.py:attribute`` for what a script defines itself:
the script is then loaded under a private module name, so that what stands under ``if __name__ == "__main__"`` does not run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from antinfer.errors import UserCodeError
from antinfer.spec.near import did_you_mean

FILE_PREFIX = "file:"
_LOADING = threading.local()
_PATH_LOCK = threading.Lock()
_FILE_LOCK = threading.RLock()
"""Held while a script is loaded, so that nobody gets it half executed; a script may load another."""


def split_reference(reference: str) -> tuple[str, str]:
    """Split ``module:attribute`` or ``file:/path.py:attribute`` at its last colon. Raises UserCodeError when there is nothing on a side."""
    module, _, attribute = reference.rpartition(":")
    if not module or not attribute or module == "file":
        raise UserCodeError(f"{reference!r} does not name user code", hint="Write module:name, such as steps:decode.")
    return module, attribute


def resolve(reference: str, base_dir: str) -> Callable[..., Any]:
    """Import the function or class that `reference` names.

    Puts `base_dir` first on `sys.path`, once, and leaves it there, since user code may import more later: only for processes that may run
    user code. May be called from several threads.

    Raises:
        UserCodeError: There is no such module or attribute (the message names near ones), it cannot be called, or importing it failed; then
            `user_traceback` is the traceback without our frames.
    """
    module_name, attribute = split_reference(reference)
    with _user_import():
        _put_first(base_dir)
        if module_name.startswith(FILE_PREFIX):
            with _FILE_LOCK:
                module = _load_file(module_name.removeprefix(FILE_PREFIX))
        else:
            module = _import(module_name, base_dir)
    found: Callable[..., Any] = _attribute(module, attribute, reference)
    if not callable(found):
        raise UserCodeError(f"{reference} is a {type(found).__name__}, which cannot be called", hint="Name a function or a class.")
    return found


def loading_user_code() -> bool:
    """Tell whether this thread is inside an import that `resolve` started; running a job from there would never end."""
    return bool(getattr(_LOADING, "depth", 0))


def user_traceback(error: BaseException) -> str:
    """Format `error` as the user would have seen it alone: without the frames of antinfer and of the import machinery above theirs."""
    tb: TracebackType | None = error.__traceback__
    while tb is not None and _is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))


@contextmanager
def _user_import() -> Iterator[None]:
    _LOADING.depth = getattr(_LOADING, "depth", 0) + 1
    try:
        yield
    finally:
        _LOADING.depth -= 1


def _put_first(folder: str) -> None:
    with _PATH_LOCK:
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
            importlib.invalidate_caches()


def _import(name: str, base_dir: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise _not_found(name, error.name, base_dir) from None
        raise _failed(name, error) from error
    except UserCodeError:
        raise
    # SystemExit too: a script without a main guard must not take the process down.
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from error
    expected = module_file(name, base_dir)
    actual = getattr(module, "__file__", None)
    if expected is not None and (actual is None or not os.path.samefile(expected, actual)):
        raise UserCodeError(
            f"{name} means {expected}, but another module of that name was imported before ({actual or 'built into Python'})",
            hint="Give the file another name.",
        )
    return module


def _load_file(path: str) -> ModuleType:
    name = f"antinfer_user_{Path(path).stem}_{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:12]}"
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if not os.path.isfile(path) or spec is None or spec.loader is None:
        raise UserCodeError(
            f"there is no Python file {path}{_near_file(path)}",
            hint="The script must lie at the same path on every machine that runs the job.",
        )
    _put_first(os.path.dirname(path))
    module = importlib.util.module_from_spec(spec)
    # As the import system does: dataclasses and pickles look their module up while it is still being executed.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, UserCodeError) or not isinstance(error, (Exception, SystemExit)):
            raise
        raise _failed(path, error) from error
    return module


def _failed(name: str, error: BaseException) -> UserCodeError:
    said = traceback.format_exception_only(type(error), error)[-1].strip()
    return UserCodeError(f"importing {name} failed: {said}", user_traceback=user_traceback(error))


def _not_found(name: str, missing: str, base_dir: str) -> UserCodeError:
    parent, _, last = missing.rpartition(".")
    folder = os.path.join(base_dir, *parent.split(".")) if parent else base_dir
    siblings = _modules_in(folder)
    listed = f"; Python files there: {', '.join(siblings[:8])}" if siblings else "; there are no Python files there"
    within = f" (needed for {name})" if missing != name else ""
    return UserCodeError(
        f"no module {missing!r}{within} in {folder} or among the installed packages{did_you_mean(last, siblings) or listed}",
        hint="User code is looked up in the job file's folder first, then among the installed packages.",
    )


def _modules_in(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        names = [
            entry.name.removesuffix(".py")
            for entry in entries
            if (entry.name.endswith(".py") and entry.name != "__init__.py")
            or (entry.is_dir() and entry.name.isidentifier() and not entry.name.startswith("__"))
        ]
    return sorted(names)


def _near_file(path: str) -> str:
    folder = os.path.dirname(path)
    return did_you_mean(os.path.basename(path), os.listdir(folder)) if os.path.isdir(folder) else f" (nor a folder {folder})"


def _attribute(module: ModuleType, dotted: str, reference: str) -> Any:
    found: Any = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            names = sorted(name for name, value in vars(found).items() if not name.startswith("_") and callable(value))
            offered = did_you_mean(part, names) or (f"; it has {', '.join(names[:8])}" if names else "")
            where = getattr(module, "__file__", None) or module.__name__
            raise UserCodeError(f"{reference}: no {part!r} in {where}{offered}")
        found = getattr(found, part)
    return found


def module_file(name: str, base_dir: str) -> str | None:
    """Return the source file of module `name` under `base_dir`, or None when there is none (namespace packages have none either)."""
    stem = os.path.join(base_dir, *name.split("."))
    return next((path for path in (os.path.join(stem, "__init__.py"), stem + ".py") if os.path.isfile(path)), None)


def _is_ours(filename: str) -> bool:
    return (
        filename.startswith("<frozen importlib") or filename == __file__ or os.path.dirname(filename) == os.path.dirname(importlib.__file__)
    )

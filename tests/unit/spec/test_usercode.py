"""User code by name: found, or refused with the user's own words."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest

from antinfer.errors import UserCodeError
from antinfer.spec.usercode import loading_user_code, resolve

_NUMBERS = itertools.count()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A job's folder; `sys.path` and `sys.modules` are put back afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def module(folder):
    """Write a module under a name that no other test uses."""

    def write(text):
        name = f"usercode_{next(_NUMBERS)}"
        (folder / f"{name}.py").write_text(text)
        return name

    return write


def refused(reference, folder):
    with pytest.raises(UserCodeError) as caught:
        resolve(reference, str(folder))
    return caught.value


def test_finds_functions_classes_and_nested_names(module, folder):
    name = module("def f(batch): return batch\nclass C:\n    class D: pass\n    @staticmethod\n    def g(b): return 7\n")

    assert resolve(f"{name}:f", str(folder))({}) == {}
    assert resolve(f"{name}:C.D", str(folder)).__name__ == "D"
    assert resolve(f"{name}:C.g", str(folder))(0) == 7
    assert sys.path.count(str(folder)) == 1


def test_finds_modules_in_packages_and_installed_ones(folder):
    (folder / "usercode_pkg" / "sub").mkdir(parents=True)
    (folder / "usercode_pkg" / "sub" / "steps.py").write_text("from ..other import f\n")
    (folder / "usercode_pkg" / "other.py").write_text("def f(batch): return 1\n")

    assert resolve("usercode_pkg.sub.steps:f", str(folder))({}) == 1
    assert resolve("operator:itemgetter", str(folder)) is not None


def test_missing_module_names_the_near_file(module, folder):
    name = module("")
    assert f"did you mean {name!r}?" in str(refused(f"{name}x:f", folder))
    assert "there are no Python files there" in str(refused("nowhere:f", folder / "empty"))


def test_missing_submodule_names_the_near_one(folder):
    (folder / "usercode_pkg2").mkdir()
    (folder / "usercode_pkg2" / "steps.py").write_text("")
    assert "did you mean 'steps'?" in str(refused("usercode_pkg2.step:f", folder))


def test_missing_attribute_names_the_near_one(module, folder):
    name = module("def decode(batch): pass\n")
    assert f"no 'decod' in {folder}/{name}.py; did you mean 'decode'?" in str(refused(f"{name}:decod", folder))


def test_what_cannot_be_called_is_refused(module, folder):
    name = module("x = 3\n")
    assert "is a int, which cannot be called" in str(refused(f"{name}:x", folder))


@pytest.mark.parametrize("reference", ["steps", ":f", "steps:", "file:"])
def test_malformed_reference(reference, folder):
    assert "does not name user code" in str(refused(reference, folder))


@pytest.mark.parametrize("reference", ["{name}:f", "file:{folder}/{name}.py:f"])
def test_error_inside_the_users_module_keeps_the_users_traceback_alone(module, folder, reference):
    name = module("def helper():\n    return 1 / 0\n\nhelper()\n")
    error = refused(reference.format(name=name, folder=folder), folder)

    assert "ZeroDivisionError: division by zero" in str(error)
    lines = error.user_traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'File "{folder}/{name}.py", line 4, in <module>' in lines[1]
    assert "return 1 / 0" in error.user_traceback
    assert "antinfer/spec" not in error.user_traceback
    assert "importlib" not in error.user_traceback


def test_missing_package_inside_the_users_module_is_the_users_error(module, folder):
    name = module("import no_such_package_at_all\n")
    error = refused(f"{name}:f", folder)
    assert "No module named 'no_such_package_at_all'" in str(error)
    assert f"{name}.py" in error.user_traceback


def test_syntax_error_shows_the_line(module, folder):
    name = module("def f(:\n")
    error = refused(f"{name}:f", folder)
    assert "SyntaxError" in str(error)
    assert f"{name}.py" in error.user_traceback and "def f(:" in error.user_traceback


def test_exit_at_import_is_an_error_not_an_exit(module, folder):
    name = module("raise SystemExit(3)\n")
    assert "SystemExit: 3" in str(refused(f"{name}:f", folder))


def test_module_shadowed_by_one_imported_before_is_named(folder):
    (folder / "colorsys.py").write_text("def f(batch): return batch\n")
    import colorsys

    error = refused("colorsys:f", folder)
    assert str(folder / "colorsys.py") in str(error) and str(colorsys.__file__) in str(error)


def test_script_is_loaded_by_file_without_its_main_part(module, folder):
    name = module("import sibling_of_script\ndef f(batch): return __name__\nif __name__ == '__main__':\n    raise RuntimeError\n")
    (folder / "sibling_of_script.py").write_text("")
    reference = f"file:{folder}/{name}.py:f"

    found = resolve(reference, "")
    assert found({}) not in ("__main__", name)
    assert resolve(reference, "") is found


def test_missing_script_names_the_near_one(module, folder):
    name = module("")
    assert f"did you mean '{name}.py'?" in str(refused(f"file:{folder}/{name}x.py:f", folder))


def test_script_loaded_by_many_threads_runs_once(module, folder):
    name = module("import time\ntime.sleep(0.05)\ndef f(batch): return batch\n")
    found = []
    threads = [threading.Thread(target=lambda: found.append(resolve(f"file:{folder}/{name}.py:f", str(folder)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len({id(each) for each in found}) == 1


def test_user_code_can_tell_that_it_is_being_loaded(module, folder):
    name = module("from antinfer.spec.usercode import loading_user_code\nseen = loading_user_code()\ndef f(batch): return seen\n")
    assert resolve(f"{name}:f", str(folder))({}) is True
    assert loading_user_code() is False

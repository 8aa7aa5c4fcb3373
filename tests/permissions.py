"""Commands that file permissions bind, also where the tests run as root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Final

import pytest

_LEFT_OUT: Final = "-dac_override,-dac_read_search"


def bound(command: Sequence[str]) -> list[str]:
    """Return `command` without root's power to read and write everything. Skips the test where nothing can take it away."""
    if os.geteuid() != 0:
        return list(command)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root reads and writes everything, and there is no setpriv")
    return [setpriv, f"--bounding-set={_LEFT_OUT}", f"--inh-caps={_LEFT_OUT}", *command]

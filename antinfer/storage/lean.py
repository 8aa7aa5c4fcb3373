"""Keep start-up short: pyarrow imports pandas, where it is installed, the first time that it is given a plain Python list."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_kept_out = False


class _Absent:
    """Makes pandas look as if it were not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not needed here", name=name)
        return None


def keep_pandas_out() -> None:
    """Let pyarrow look for pandas now and not find it, which saves half a second; it looks again when somebody asks for a data frame.

    Call it before other threads import anything. Does nothing when pandas is imported already.
    """
    global _kept_out
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(absent)
    _kept_out = True


def notice_pandas() -> None:
    """Let pyarrow find pandas again when user code has imported it: without, it would not know the nulls of a series. Cheap to call."""
    global _kept_out
    if _kept_out and "pandas" in sys.modules:
        import pyarrow as pa

        # A data frame is what makes it look again.
        pa.table({"any": pa.array([], pa.int8())}).to_pandas()
        _kept_out = False

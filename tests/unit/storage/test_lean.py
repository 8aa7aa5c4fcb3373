"""Plain lists go into Arrow without pandas, and data frames still come out."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from antinfer.storage.lean import keep_pandas_out
keep_pandas_out()
import pyarrow as pa
table = pa.table({"a": [1, 2]})
assert "pandas" not in sys.modules
assert not any(type(finder).__name__ == "_Absent" for finder in sys.meta_path)
assert type(table.to_pandas()).__name__ == "DataFrame"
"""


def test_pandas_stays_out_until_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""Pandas stays out until user code brings it, and then its nulls are known for what they are."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from antinfer.storage.lean import keep_pandas_out, notice_pandas
keep_pandas_out()
import pyarrow as pa
notice_pandas()
pa.array(["a", None])
assert "pandas" not in sys.modules
import pandas as pd
notice_pandas()
print(pa.array(pd.Series([1.0, None])).to_pylist(), pa.array(pd.Series(["a", None])).to_pylist())
"""


def test_series_of_pandas_that_was_imported_later_keep_their_nulls():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout) == (0, "[1.0, None] ['a', None]\n"), ended.stderr

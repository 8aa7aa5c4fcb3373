from __future__ import annotations

from pathlib import Path

import pytest

from antinfer.errors import InternalError
from antinfer.master import sealing
from antinfer.storage.place import open_place


def test_records_that_do_not_add_up_are_never_sealed(tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="10 rows were committed, but its records name 0"):
        sealing.final_records(open_place(str(tmp_path)), "parquet", 10)

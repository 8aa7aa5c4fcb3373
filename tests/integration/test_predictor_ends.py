"""How a predictor process ends: quickly, with the code that user code chose, and with all written that user code wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from antinfer.worker.deaths import Death
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors import spawn
from antinfer.worker.predictors.process import PredictorProcess

pytestmark = pytest.mark.timeout(120)

CODE = """
import ctypes, os, sys
import numpy as np

LOG = None

class KeepsOpen:
    def __init__(self, log):
        global LOG
        LOG = open(log, "w")
        libc = ctypes.CDLL(None)
        libc.fopen.restype = ctypes.c_void_p
        libc.fputs(b"from C", ctypes.c_void_p(libc.fopen(f"{log}-c".encode(), b"w")))
    def __call__(self, batch):
        LOG.write("not closed")
        return batch

class ClosesOutput:
    def __init__(self, log):
        self.log = log
    def __call__(self, batch):
        sys.stdout.close()
        sys.stderr = open(self.log, "w")
        return batch

class Forks:
    def __call__(self, batch):
        child = os.fork()
        if not child:
            sys.exit(7)
        _, status = os.waitpid(child, 0)
        return {"x": np.full(len(batch["x"]), os.waitstatus_to_exitcode(status))}

class Exits:
    def __init__(self, where, code):
        self.code = code
        if where == "setup":
            sys.exit(code)
    def __call__(self, batch):
        sys.exit(self.code)
"""


def of_one_batch(folder: Path, target: str, **args: Any) -> tuple[list[Any] | None, Death]:
    """Run one batch in a process of its own and let that end; return the results and how it ended."""
    (folder / "ending_steps.py").write_text(CODE)
    stage = StageCall(target, "predict", f"ending_steps:{target}", str(folder), args)
    process = PredictorProcess(spawn.start(1), stage, 1)
    ready = process.receive(60)
    if ready is not None:
        process.send(0, [pa.record_batch({"x": np.arange(2)})])
    answer = None if ready is None else process.receive(60)
    found = None if answer is None else process.outcome(answer).batch
    if answer is not None:
        process.stop()
    death = process.end()
    return None if found is None else found["x"].to_pylist(), death


def test_what_user_code_has_written_to_files_that_it_never_closes_is_there(tmp_path: Path) -> None:
    results, death = of_one_batch(tmp_path, "KeepsOpen", log=str(tmp_path / "log"))
    assert results == [0, 1] and death.how == "exited with code 0"
    assert (tmp_path / "log").read_text() == "not closed" and (tmp_path / "log-c").read_text() == "from C"


def test_a_process_whose_output_user_code_has_closed_ends_in_silence(tmp_path: Path) -> None:
    results, death = of_one_batch(tmp_path, "ClosesOutput", log=str(tmp_path / "errors"))
    assert results == [0, 1] and death.how == "exited with code 0"
    assert (tmp_path / "errors").read_text() == ""


def test_a_child_that_user_code_has_forked_ends_with_its_own_code(tmp_path: Path) -> None:
    assert of_one_batch(tmp_path, "Forks")[0] == [7, 7]


@pytest.mark.parametrize("where", ["setup", "call"])
@pytest.mark.parametrize(("code", "told"), [(3, 3), (0, 0), (None, 0), ("words", 1), (-1, 255)])
def test_a_process_that_user_code_exits_is_said_to_have_ended_with_that_code(tmp_path: Path, where: str, code: Any, told: int) -> None:
    results, death = of_one_batch(tmp_path, "Exits", where=where, code=code)
    assert results is None and death.how == f"exited with code {told}"

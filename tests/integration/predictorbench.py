"""A bench for predictor processes: user code of several kinds, a real flow around one predictor, and no host."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from antinfer.worker.host.flow import Flow
from antinfer.worker.pipeline.assembler import BatchLimits
from antinfer.worker.pipeline.graph import Call
from antinfer.worker.pipeline.pieces import Piece, Root
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.predictors.predictor import Predictor
from antinfer.worker.predictors.sizing import SizeMemory, Sizing
from tests.integration.hosts import wait_until

CODE = """
import atexit, os, signal, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from antinfer.errors import BadRows

class Overlaps:
    def __init__(self, seconds=0.0, bad=(), hungry=0, log=""):
        self.seconds, self.bad, self.hungry, self.log = seconds, set(bad), hungry, log
        self.open, self.views, self.most, self.sizes = [], 0, 0, []
    def expect(self, rows):
        self.note(f"expect {rows}")
    def register(self, view):
        self.views += 1
        assert isinstance(view, memoryview) and not view.readonly
    def unregister(self, view):
        self.views -= 1
    def teardown(self):
        self.note("torn down")
    def note(self, text):
        if self.log:
            with open(self.log, "a") as file:
                file.write(text + "\\n")
    def submit(self, batch):
        x = batch["x"]
        assert not x.flags.writeable
        if self.hungry and len(x) > self.hungry:
            raise MemoryError(f"{len(x)} rows")
        # One after the other, as a device does.
        begins = max(time.monotonic(), self.open[-1][1] if self.open else 0.0)
        self.open.append((x, begins + self.seconds))
        self.most = max(self.most, len(self.open))
        return self.open[-1]
    def collect(self, ticket):
        assert self.open.pop(0) is ticket
        x, ready = ticket
        time.sleep(max(0.0, ready - time.monotonic()))
        if set(x.tolist()) & self.bad:
            raise ValueError("bad row")
        n = len(x)
        return {"x": x, "most": np.full(n, self.most), "views": np.full(n, self.views), "rows": np.full(n, n)}

class Tells(Overlaps):
    def done(self, ticket):
        return time.monotonic() >= ticket[1]

class Plain:
    def __init__(self, hungry=0, die=()):
        self.hungry, self.die = hungry, set(die)
    def __call__(self, batch):
        x = batch["x"]
        if self.hungry and len(x) > self.hungry:
            raise MemoryError(f"{len(x)} rows")
        if 7 in x and self.hungry == 1:
            raise MemoryError("this row alone")
        if set(x.tolist()) & self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"x": x, "rows": np.full(len(x), len(x)), "devices": [os.environ.get("CUDA_VISIBLE_DEVICES", "all")] * len(x)}

class Strains:
    # Takes as long for many rows as for few, and cannot hold row `at` among others, or at all.
    def __init__(self, at, fits_alone):
        self.at, self.fits_alone = at, fits_alone
    def __call__(self, batch):
        x = batch["x"]
        if self.at in x and (len(x) > 1 or not self.fits_alone):
            raise MemoryError(f"{len(x)} rows")
        time.sleep(0.01)
        return {"x": x}

class Leaves:
    def __init__(self, log):
        atexit.register(self.note, "at exit")
        self.log = log
    def __call__(self, batch):
        return {"x": batch["x"], "nice": np.full(len(batch["x"]), os.nice(0))}
    def teardown(self):
        self.note("torn down")
    def note(self, text):
        with open(self.log, "a") as file:
            file.write(text + "\\n")

class Decode:
    def submit(self, batch):
        made = batch["raw"] * 10
        made.flags.writeable = False
        return {"x": made}
    def __call__(self, batch):
        raise AssertionError("this is the CPU's way")

class DecodeAside(Decode):
    def __init__(self, seconds=0.0, bad=(), hungry=0, log=""):
        self.seconds, self.bad, self.hungry, self.log = seconds, set(bad), hungry, log
        self.aside = ThreadPoolExecutor(1)
    def submit(self, batch):
        return self.aside.submit(self.decode, batch["raw"])
    def decode(self, raw):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{raw[0]}\\n")
        time.sleep(self.seconds)
        if self.hungry and len(raw) > self.hungry:
            raise MemoryError(f"{len(raw)} rows")
        bad = {row: "no picture" for row, value in enumerate(raw.tolist()) if value in self.bad}
        if bad:
            raise BadRows(bad)
        return {**Decode.submit(self, {"raw": raw}), "more": raw}
    def teardown(self):
        self.aside.shutdown()

class Unit:
    # A piece of the memory of a device.
    used = 0
    def __init__(self, most):
        self.is_held = Unit.used < most
        if not self.is_held:
            raise MemoryError(f"all {most} are used")
        Unit.used += 1
    def __del__(self):
        Unit.used -= self.is_held

class DecodeIntoMemory(Decode):
    def __init__(self, most):
        self.most = most
        self.aside = ThreadPoolExecutor(1)
    def submit(self, batch):
        return self.aside.submit(lambda: {"x": batch["raw"] * 10, "unit": Unit(self.most)})

class ComputesInMemory:
    def __init__(self, most):
        self.most = most
    def submit(self, batch):
        return batch, Unit(self.most), time.monotonic() + 0.02
    def done(self, ticket):
        return time.monotonic() >= ticket[2]
    def collect(self, ticket):
        time.sleep(max(0.0, ticket[2] - time.monotonic()))
        return {"x": ticket[0]["x"]}

def on_cpu(batch):
    return {"x": batch["raw"] * 10}

class Slow:
    def __init__(self):
        time.sleep(60)
    def __call__(self, batch):
        return batch
"""


class Bench:
    """A flow with one node, fed by hand; what comes out, by position."""

    def __init__(self, folder: Path, target: str, rows: int, column: str = "x", **args: Any) -> None:
        (folder / "bench_steps.py").write_text(CODE)
        self.folder = folder
        self.stage = self.stage_of(target, **args)
        self.found: dict[int, dict[str, Any]] = {}
        self.flow = Flow([Call(self.stage, BatchLimits(rows), 1, in_processes=True)], self.collect)
        self.memory = SizeMemory(folder / "sizes")
        self.sizing = Sizing(0, self.stage, self.flow, memory=self.memory)
        self.root = Root(0)
        self.node = 0
        self.column = column
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    def behind(self, front: StageCall, rows: int) -> None:
        """Put a hybrid stage in front whose work the predictor does."""
        limits = BatchLimits(rows)
        raw = Call(front, limits, 1, in_processes=False)
        self.flow = Flow([raw, Call(self.stage, limits, 1, in_processes=True, hybrid=0, on_gpu=front, gpu_share=1.0)], self.collect)
        self.node = 1

    def stage_of(self, target: str, **args: Any) -> StageCall:
        return StageCall(target, "predict", f"bench_steps:{target}", str(self.folder), args, tolerant=True)

    def start(self, **keys: Any) -> Predictor:
        predictor = Predictor(self.node, self.stage, self.flow, threads=1, **{"sizing": self.sizing, **keys})

        def run() -> None:
            try:
                predictor.run()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                self.errors.append(error)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        return predictor

    def put(self, begin: int, rows: int) -> None:
        self.flow.put(Piece(self.root, begin, begin + rows, pa.record_batch({self.column: np.arange(begin, begin + rows)})))

    def wait(self, rows: int) -> None:
        wait_until(lambda: self.errors or len(self.found) + len(self.root.bad) >= rows, f"{rows} rows")  # type: ignore[arg-type, return-value]
        assert not self.errors, self.errors

    def stop(self) -> None:
        self.flow.stop()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def collect(self, piece: Piece) -> None:
        if piece.batch is not None:
            for row, values in enumerate(piece.batch.to_pylist()):
                assert self.found.setdefault(piece.position(row), values) is values

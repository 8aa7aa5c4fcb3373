"""The batch size of one stage, as its predictors find it: the policy with a lock around it, its effect, its log and its memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import Protocol

from antinfer.storage.cache import cache_dir
from antinfer.worker.pipeline.assembler import Assembled
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.tuning.batchsize import FIRST_ROWS, SLOTS, BatchSizePolicy, Decision, Sample

_LOG = logging.getLogger("antinfer.predictors")


class Sized(Protocol):
    """What a new size is told to (`host.flow.Flow`)."""

    def set_batch_rows(self, node: int, rows: int) -> bool: ...

    def batch_rows(self, node: int) -> int: ...


class SizeMemory:
    """Batch sizes of earlier runs on this machine, one small file each. What cannot be read or written is forgotten."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = cache_dir() / "batch-sizes" if folder is None else folder

    def recall(self, stage: StageCall, device: str, dtype: str) -> int | None:
        try:
            rows = json.loads(self._path(stage, device, dtype).read_text(encoding="utf-8"))["rows"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return rows if isinstance(rows, int) else None

    def remember(self, stage: StageCall, device: str, dtype: str, rows: int) -> None:
        text = json.dumps({"rows": rows, "target": stage.target, "args": stage.args, "device": device, "dtype": dtype})
        path = self._path(stage, device, dtype)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Under its name only when it is whole: other workers read and write it too.
            descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=".size-")
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(made, path)
        except OSError as error:
            _LOG.info("batch size is not remembered: %s", error, extra={"action": "batch_size", "stage": stage.name})

    def _path(self, stage: StageCall, device: str, dtype: str) -> Path:
        # The folder of the job tells models apart that have one name in two projects.
        key = json.dumps([stage.target, stage.base_dir, stage.args, stage.columns, device, dtype], sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


class Sizing:
    """The batch size of one stage, shared by its predictors. All methods may be called from several threads."""

    def __init__(
        self,
        node: int,
        stage: StageCall,
        flow: Sized,
        *,
        max_bytes: int | None = None,
        probes: bool = False,
        slots: int = SLOTS,
        memory: SizeMemory | None = None,
    ) -> None:
        """Start with the size that `flow` has for `node`, the user's or the most that is allowed.

        Args:
            node: The stage's number in `flow`.
            stage: What is called.
            flow: Told of every decision.
            max_bytes: Most bytes of a batch.
            probes: Search for the best size, from a small one on.
            slots: Batches under way in one process.
            memory: Where found sizes are kept; default: the user's cache folder.
        """
        self._node = node
        self._stage = stage
        self._flow = flow
        self._memory = SizeMemory() if memory is None else memory
        self._guard = threading.Lock()
        self._device: tuple[str, str] | None = None
        most = flow.batch_rows(node)
        first = min(FIRST_ROWS, most)
        probes = probes and flow.set_batch_rows(node, first)
        self._policy = BatchSizePolicy(first if probes else most, most, max_bytes=max_bytes, probes=probes, slots=slots)

    def ready(self, device: str, dtype: str) -> None:
        """Learn what a predictor runs on; the first one decides what is recalled."""
        with self._guard:
            if self._device is not None:
                return
            self._device = (device, dtype)
            rows = self._memory.recall(self._stage, device, dtype)
            if rows is not None:
                self._apply(self._policy.recall(rows, device))

    def observe(self, sample: Sample) -> None:
        """Learn from a batch that was computed."""
        with self._guard:
            self._apply(self._policy.observe(sample))

    def ran_out(self, call: Assembled) -> None:
        """Learn that a batch did not fit into memory; to be told before it is cut into parts."""
        with self._guard:
            rows = self._policy.rows
            decision = self._policy.ran_out(call.rows)
            if decision is not None and not call.cut_from:
                call.cut_from = rows
            self._apply(decision)

    def acquit(self, call: Assembled) -> None:
        """Learn that one row alone is bad; when it is what did not fit into memory, the size is what it was before."""
        with self._guard:
            self._apply(self._policy.acquit(call.cut_from))

    def _apply(self, decision: Decision | None) -> None:
        if decision is None or not self._flow.set_batch_rows(self._node, decision.rows):
            return
        _LOG.info(
            "batches of %s: %s",
            self._stage.where,
            decision.reason,
            extra={"action": "batch_size", "stage": self._stage.name, "rows": decision.rows},
        )
        if decision.settled and self._device is not None:
            self._memory.remember(self._stage, *self._device, decision.rows)

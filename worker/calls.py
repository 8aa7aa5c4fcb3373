"""Calling user code: built once, called with batches or rows, its contract checked, its errors pinned to rows."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from antinfer.errors import UserCodeError
from antinfer.spec import usercode
from antinfer.worker import batches
from antinfer.worker.pipeline import unify
from antinfer.worker.pipeline.pieces import BadRow, Positions
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall
from antinfer.worker.schemas import SchemaGate

_HOPELESS_ROWS = 32
"""So many rows failing alone, and alike, before any call has ever succeeded, are a mistake in the code and not in the rows."""


class Caller:
    """One copy of a stage's user code. Not safe to use from several threads."""

    def __init__(self, stage: StageCall, *, copy: bool) -> None:
        """Import and build the user code and run its ``setup``. Raises UserCodeError with the user's traceback.

        With `copy`, outcomes do not share memory with arrays that user code may keep.
        """
        self._stage = stage
        self._copy = copy
        self._gate = SchemaGate(stage.where)
        self._succeeded = False
        self._failures: dict[str, int] = {}
        target = usercode.resolve(stage.target, stage.base_dir)
        self._owner: Any = None
        if isinstance(target, type):
            self._owner = self._guarded("constructor", lambda: target(**stage.args))
            if not callable(self._owner):
                raise UserCodeError(f"{stage.where}: {stage.target} is a class without __call__", hint="Define __call__(self, batch).")
            self._call: Any = self._owner
            if hasattr(self._owner, "setup"):
                self._guarded("setup()", self._owner.setup)
        else:
            self._call = (lambda value: target(value, **stage.args)) if stage.args else target

    def close(self) -> None:
        """Run the user's ``teardown``, if there is one. Raises UserCodeError when it fails."""
        if hasattr(self._owner, "teardown"):
            self._guarded("teardown()", self._owner.teardown)

    def run(self, batch: pa.RecordBatch) -> Outcome:
        """Call the user code on `batch` (input columns only).

        A batch on which it raises is halved until the rows that are to blame stand alone; they are in the outcome's `bad`.

        Raises UserCodeError when the code breaks its contract, or seems to work for no row at all.
        """
        if self._stage.kind in ("flat_map", "filter"):
            return self._run_rows(batch)
        try:
            return Outcome(self._one_for_one(batch, copy=self._copy))
        except UserCodeError:
            raise
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            fault = _Fault.of(error)
        # Outside of the handler, or every later error would drag this one along as its context.
        return self._bisect(batch, fault)

    # -- batches ---------------------------------------------------------------------------------------------------------------------
    def _one_for_one(self, batch: pa.RecordBatch, *, copy: bool) -> pa.RecordBatch:
        result = self._call(batches.to_format(batch, self._stage.batch_format))
        is_stream = isinstance(result, Iterator)
        # What is yielded may lie in an array that the next step fills again.
        parts = [batches.from_result(part, self._stage.where, copy=copy or is_stream) for part in (result if is_stream else (result,))]
        returned = sum(part.num_rows for part in parts)
        if returned != batch.num_rows:
            raise UserCodeError(
                f"{self._stage.where} got {batch.num_rows} rows and returned {returned}",
                hint="Return one value per input row; a function that changes the number of rows belongs in a flat_map or a filter stage.",
            )
        self._succeeded = True
        fitting = [self._gate.fit(part) for part in parts]
        return unify.concat(fitting)

    def _bisect(self, batch: pa.RecordBatch, fault: _Fault) -> Outcome:
        good: list[tuple[int, pa.RecordBatch]] = []
        bad: list[tuple[int, BadRow]] = []
        todo: list[tuple[int, int, _Fault]] = [(0, batch.num_rows, fault)]
        while todo:
            start, rows, fault = todo.pop()
            if rows == 1:
                bad.append((start, self._blame(fault)))
                continue
            half = rows // 2
            for at, count in ((start + half, rows - half), (start, half)):
                try:
                    # A copy: the result must outlive the calls that follow, which may fill the same array again.
                    good.append((at, self._one_for_one(batch.slice(at, count), copy=True)))
                except UserCodeError:
                    raise
                except Exception as again:  # noqa: BLE001 - as above
                    todo.append((at, count, _Fault.of(again)))
        good.sort(key=lambda part: part[0])
        if not bad:
            return Outcome(unify.concat([made for _, made in good]))
        rows_kept = [np.arange(at, at + made.num_rows, dtype=np.int64) for at, made in good]
        return Outcome(
            unify.concat([made for _, made in good]) if good else None,
            np.concatenate(rows_kept) if good else np.empty(0, dtype=np.int64),
            bad,
        )

    # -- rows ------------------------------------------------------------------------------------------------------------------------
    def _run_rows(self, batch: pa.RecordBatch) -> Outcome:
        fans_out = self._stage.kind == "flat_map"
        made: list[object] = []
        links: list[int] = []
        bad: list[tuple[int, BadRow]] = []
        for index, row in enumerate(batches.rows_of(batch)):
            try:
                result = self._call(row)
                children = list(result) if fans_out and not isinstance(result, dict) else result
            except Exception as error:  # noqa: BLE001 - user code may raise anything
                bad.append((index, self._blame(_Fault.of(error))))
                continue
            self._succeeded = True
            if not fans_out:
                if children:
                    links.append(index)
                continue
            if not isinstance(children, list):
                raise UserCodeError(f"{self._stage.where} must return a list of rows, not one dict", hint="Return [row] for a single row.")
            made.extend(children)
            links.extend([index] * len(children))
        rows: Positions = np.array(links, dtype=np.int64)
        return Outcome(batches.from_rows(made, self._stage.where) if made else None, rows, bad)

    # -- errors ----------------------------------------------------------------------------------------------------------------------
    def _blame(self, fault: _Fault) -> BadRow:
        if not self._succeeded and not self._stage.tolerant:
            self._failures[fault.site] = self._failures.get(fault.site, 0) + 1
            if self._failures[fault.site] >= _HOPELESS_ROWS:
                raise UserCodeError(
                    f"{self._stage.where} fails on every row so far: {fault.error}",
                    hint="Nothing has succeeded yet, so the code is at fault; set quarantine.max_fraction to 1 to quarantine such rows.",
                    user_traceback=fault.traceback,
                )
        return BadRow(fault.error, fault.traceback, self._stage.name)

    def _guarded(self, what: str, action: Any) -> Any:
        try:
            return action()
        except Exception as error:
            raise UserCodeError(
                f"{self._stage.where}: {what} raised {type(error).__name__}: {error}", user_traceback=user_traceback(error)
            ) from error


def select_columns(batch: pa.RecordBatch, stage: StageCall) -> pa.RecordBatch:
    """Return the columns of `batch` that `stage` is called with. Raises UserCodeError naming one that is missing."""
    if stage.columns is None:
        return batch
    missing = [name for name in stage.columns if name not in batch.schema.names]
    if missing:
        raise UserCodeError(
            f"{stage.where}: there is no column {missing[0]!r} at this point of the pipeline",
            hint=f"There are: {', '.join(batch.schema.names)}.",
        )
    return batch.select(stage.columns)


def user_traceback(error: BaseException) -> str:
    """Return the traceback of `error` from the first frame of user code on, causes included."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None and frame.tb_frame.f_globals.get("__name__", "").startswith("antinfer."):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame))


@dataclass(frozen=True, slots=True)
class _Fault:
    """What is worth knowing of an exception. Kept itself, it would keep the frames alive and with them the batch, which lies in a slab."""

    error: str
    """Type and message."""
    traceback: str
    site: str
    """Where it was raised: failures at one site are alike."""

    @classmethod
    def of(cls, error: Exception) -> _Fault:
        kind = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)
        site = f"{kind} {frames[-1].filename}:{frames[-1].lineno}" if frames else kind
        return cls(f"{kind}: {error}", user_traceback(error), site)

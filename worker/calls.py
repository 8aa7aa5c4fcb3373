"""Calling user code: built once, called with batches or rows, its contract checked, its errors pinned to rows.

A class with ``submit(batch) -> ticket`` and ``collect(ticket) -> result`` is *asynchronous*: another batch may be submitted before the last
one is collected. Tickets are collected in the order in which they were handed out.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from antinfer import faultpoints
from antinfer.errors import BadRows, InfraError, UserCodeError
from antinfer.spec import usercode
from antinfer.worker import batches, passing
from antinfer.worker.pipeline import unify
from antinfer.worker.pipeline.pieces import BadRow, Positions, take
from antinfer.worker.pipeline.splitter import Outcome
from antinfer.worker.pipeline.stagecalls import StageCall, Standing
from antinfer.worker.pipeline.unify import TooLargeError
from antinfer.worker.schemas import SchemaGate

_HOPELESS_ROWS = 32
"""So many rows failing alone, and alike, before the job has any result, are a mistake in the code and not in the rows."""
_DEPTH = 2
"""Batches that an asynchronous class is given before the first of them is collected, unless its ``depth`` says otherwise."""
_MOST_CHILDREN = 1_000_000
"""Rows that a flat_map may make of one row: its list is held in memory, and a generator that never ends would take all of it."""
_MOST_BYTES = 64 << 20
"""Once what a flat_map has made of some rows of a batch holds so much, the others wait for a call of their own. It is held several times
over, until it is an array in shared memory, by every copy of the stage."""
_CHILD_BYTES = 256
"""What Python itself needs for a row, about."""
_NUMBER_BYTES = 8
_NO_MEMORY = ("out of memory", "ALLOC_FAILED")
"""What libraries beside torch's allocator say in their RuntimeError."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is worth knowing of an exception. Kept itself, it would keep the frames alive and with them the batch, which lies in a slab."""

    error: str
    """Type and message."""
    traceback: str
    site: str
    """Where it was raised: failures at one site are alike."""
    no_memory: bool
    """There was not enough memory, of the device or the machine: a smaller batch may do."""
    rows: dict[int, str] = field(default_factory=dict)
    """Rows that the code itself names as bad, and why."""

    @classmethod
    def of(cls, error: Exception) -> Fault:
        kind = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)
        site = f"{kind} {frames[-1].filename}:{frames[-1].lineno}" if frames else kind
        rows = dict(error.errors) if isinstance(error, BadRows) else {}
        return cls(f"{kind}: {error}", user_traceback(error), site, _is_no_memory(error), rows)


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch on its way through user code."""

    batch: pa.RecordBatch
    fused: bool
    ticket: Any = None
    fault: Fault | None = None
    coming: Future[Any] | None = None
    """What the stage in front makes of it aside; nothing was submitted yet."""
    given: passing.Given = field(default_factory=passing.Given)
    """What user code got of it."""

    @property
    def bare(self) -> Begun:
        """The same as if it had not begun: nothing of what was made of it is kept."""
        return Begun(self.batch, self.fused)


class Caller:
    """One copy of a stage's user code. Not safe to use from several threads."""

    def __init__(
        self, stage: StageCall, *, copy: bool, front: StageCall | None = None, rows: int = 0, standing: Standing | None = None
    ) -> None:
        """Import and build the user code and run its ``setup``.

        Raises UserCodeError with the user's traceback, or InfraError when storage or network is at fault, as the user's code says.

        Args:
            stage: What to call.
            copy: Outcomes do not share memory with arrays that user code may keep.
            front: The stage before, whose implementation for a device runs in front of this one in fused calls.
            rows: Rows of a full batch, told to user code that has ``expect(rows)``; 0: unknown.
            standing: What the stage has shown so far, shared with other copies; None: nothing, and with nobody.
        """
        self._stage = stage
        self._copy = copy
        self._gate = SchemaGate(stage.where)
        self.standing = Standing() if standing is None else standing
        """What the stage has shown so far."""
        self._call, self._owner = self._build(stage, rows)
        self._front: Any = None
        self._front_owner: Any = None
        if front is not None:
            self._front, self._front_owner = self._build(front, rows)
            self._front = getattr(self._front_owner, "submit", self._front)
            if hasattr(self._front_owner, "setup_on_gpu"):
                self._guarded("setup_on_gpu()", self._front_owner.setup_on_gpu)
        self.is_asynchronous = _is_asynchronous(self._owner) and stage.kind in ("map_batches", "predict")
        self.depth: int = max(1, int(getattr(self._owner, "depth", _DEPTH))) if self.is_asynchronous else 1
        """Batches that may be begun before the first of them is ended."""
        self.pulse: Callable[[], None] = _nothing
        """Called before each of the calls that one batch takes, where it takes several: whoever watches sees that they come back."""

    def close(self) -> None:
        """Run the user's ``teardown``, if there is one. Raises UserCodeError when it fails."""
        for owner in (self._front_owner, self._owner):
            if hasattr(owner, "teardown"):
                self._guarded("teardown()", owner.teardown)

    def tell(self, what: str, value: Any) -> None:
        """Call the optional method `what` of the user's objects: ``register``, ``unregister`` or ``expect``."""
        for owner in (self._owner, self._front_owner):
            method = getattr(owner, what, None)
            if method is not None:
                self._guarded(f"{what}()", partial(method, value))

    def attribute(self, name: str) -> str:
        """Return what the user's object says of itself, such as its ``dtype``, as text; empty when it says nothing."""
        found = getattr(self._owner, name, None)
        return "" if found is None else str(found)

    def run(self, batch: pa.RecordBatch, *, fused: bool = False) -> Outcome:
        """Call the user code on `batch` (input columns only).

        A batch on which it raises is halved until the rows that are to blame stand alone; they are in the outcome's `bad`.

        Raises UserCodeError when the code breaks its contract, or seems to work for no row at all.
        """
        ended = self.end(self.begin(batch, fused=fused))
        # Outside of the handler, or every later error would drag this one along as its context.
        return self.recover(batch, ended, fused=fused) if isinstance(ended, Fault) else ended

    def begin(self, batch: pa.RecordBatch, *, fused: bool = False) -> Begun:
        """Submit `batch` to an asynchronous class; others compute in `end`. At most `depth` batches may be submitted and not ended.

        Where the stage in front works aside, nothing is submitted yet (`Begun.coming`): `submit` does so.
        """
        begun = Begun(batch, fused)
        return self._submitted(begun, lambda: self._form(begun)) if self.is_asynchronous else begun

    def submit(self, begun: Begun) -> Begun:
        """Submit what the stage in front makes of a batch, waiting for it if need be."""
        coming, begun = begun.coming, replace(begun, coming=None)
        assert coming is not None
        error = _error_of(coming)
        # Not raised here: exception and frames would keep each other alive, and with them the batch and what lies on the device.
        if isinstance(error, Exception) and not isinstance(error, UserCodeError):
            return replace(begun, fault=Fault.of(error))
        return self._submitted(begun, lambda: self._picked(coming.result()))

    def _submitted(self, begun: Begun, form: Callable[[], Any]) -> Begun:
        try:
            made = form()
            return replace(begun, coming=made) if isinstance(made, Future) else replace(begun, ticket=self._owner.submit(made))
        except UserCodeError:
            raise
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            return replace(begun, fault=Fault.of(error))

    def is_done(self, begun: Begun) -> bool:
        """Tell whether there is no sense in waiting before `end`: it would not block, or nobody can say."""
        done = getattr(self._owner, "done", None)
        if done is None or begun.fault is not None:
            return True
        try:
            return bool(done(begun.ticket))
        except Exception:  # noqa: BLE001 - whatever it is, `end` meets it and tells
            return True

    def end(self, begun: Begun, *, copy: bool | None = None) -> Outcome | Fault:
        """Return what user code made of a batch, or why it raised. Batches are ended in the order in which they were submitted.

        With `copy` the outcome outlives later calls, whose results may lie in the same memory; default: as the constructor was told.

        Raises UserCodeError when the code breaks its contract.
        """
        if begun.coming is not None:
            begun = self.submit(begun)
        if begun.fault is not None:
            return begun.fault
        if self._stage.kind in ("flat_map", "filter"):
            return self._run_rows(begun.batch)
        try:
            made = [self._owner.collect(begun.ticket) if self.is_asynchronous else self._call(self._arguments(begun))]
            return Outcome(self._read(made, begun, copy=self._copy if copy is None else copy))
        except UserCodeError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return Fault.of(error)

    # -- batches ---------------------------------------------------------------------------------------------------------------------
    def _form(self, begun: Begun) -> Any:
        batch = begun.batch
        faultpoints.hit("user.call", stage=self._stage.where, rows=batch)
        if begun.fused:
            made = batches.to_format(batch, "numpy", writable=False)
            begun.given.note(batch, "numpy", made)
            made = self._front(made)
            return made if isinstance(made, Future) else self._picked(made)
        form = self._stage.batch_format
        made = batches.to_format(batch, form, writable=not self.is_asynchronous)
        begun.given.note(batch, form, made)
        return made

    def _arguments(self, begun: Begun) -> Any:
        """Return what a class is called with that computes at once, for which the stage in front cannot work aside."""
        made = self._form(begun)
        try:
            return self._picked(made.result()) if isinstance(made, Future) else made
        finally:
            # As in `submit`.
            del made

    def _picked(self, made: Any) -> Any:
        """Return those of the columns that the stage in front has made that this one is called with."""
        return made if self._stage.columns is None else {name: made[name] for name in self._stage.columns if name in made}

    def _read(self, made: list[Any], begun: Begun, *, copy: bool) -> pa.RecordBatch:
        where, rows = self._stage.where, begun.batch.num_rows
        if isinstance(made[0], Iterator):
            # What is yielded may lie in an array that the next step fills again.
            parts = list(_until(made[0], rows, where, begun.given))
        else:
            parts = [batches.take_result(made, where, copy=copy, given=begun.given)]
        returned = sum(part.num_rows for part in parts)
        if returned != rows:
            raise UserCodeError(
                f"{where} got {rows} rows and returned {returned}",
                hint="Return one value per input row; a function that changes the number of rows belongs in a flat_map or a filter stage.",
            )
        self.standing.has_results = True
        return unify.concat([self._gate.fit(part) for part in parts])

    def recover(self, batch: pa.RecordBatch, fault: Fault, *, fused: bool = False) -> Outcome:
        """Run `batch` again after `fault`, in halves, until the rows that are to blame stand alone. No other may be submitted meanwhile."""
        good: list[tuple[NDArray[np.int64], pa.RecordBatch]] = []
        bad: list[tuple[int, BadRow]] = []
        todo: list[tuple[NDArray[np.int64], Fault]] = [(np.arange(batch.num_rows, dtype=np.int64), fault)]
        while todo:
            rows, fault = todo.pop()
            for again in self._smaller(rows, fault, bad):
                part = take(batch, again)
                assert part is not None
                self.pulse()
                # A copy: the result must outlive the calls that follow, which may fill the same array again.
                ended = self.end(self.begin(part, fused=fused), copy=True)
                if isinstance(ended, Fault):
                    todo.append((again, ended))
                else:
                    good.append((again, ended.batch))
        good.sort(key=lambda part: int(part[0][0]))
        return self._assembled(good, sorted(bad, key=lambda each: each[0]))

    def _smaller(self, rows: NDArray[np.int64], fault: Fault, bad: list[tuple[int, BadRow]]) -> list[NDArray[np.int64]]:
        """Return in which parts to run `rows` again, and add those that are to blame to `bad`."""
        named = {row: error for row, error in fault.rows.items() if isinstance(row, int) and 0 <= row < len(rows)}
        if named:
            bad += [(int(rows[row]), self._blame(fault, error)) for row, error in named.items()]
            rest = np.delete(rows, list(named))
            return [rest] if len(rest) else []
        if len(rows) == 1:
            bad.append((int(rows[0]), self._blame(fault)))
            return []
        return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]

    @staticmethod
    def _assembled(good: list[tuple[NDArray[np.int64], pa.RecordBatch]], bad: list[tuple[int, BadRow]]) -> Outcome:
        if not good:
            return Outcome.nothing(bad)
        rows = np.concatenate([rows for rows, _ in good])
        batch = unify.concat([made for _, made in good])
        if bool(np.any(np.diff(rows) < 0)):
            # Rows named as bad leave gaps, so that parts may lie within each other.
            order = np.argsort(rows)
            rows, batch = rows[order], take(batch, order)
        return Outcome(batch, rows, bad) if bad else Outcome(batch)

    # -- rows ------------------------------------------------------------------------------------------------------------------------
    def _run_rows(self, batch: pa.RecordBatch) -> Outcome:
        fans_out = self._stage.kind == "flat_map"
        made: list[object] = []
        links: list[int] = []
        bad: list[tuple[int, BadRow]] = []
        held = 0
        ran = None
        for index, row in enumerate(batches.rows_of(batch)):
            if held >= _MOST_BYTES:
                ran = index
                break
            try:
                faultpoints.hit("user.call", stage=self._stage.where, rows=row)
                result = self._call(row)
                children = list(islice(result, _MOST_CHILDREN + 1)) if fans_out and not isinstance(result, dict) else result
                size = sum(_CHILD_BYTES + _bytes_of(child) for child in children) if fans_out else 0
            except Exception as error:  # noqa: BLE001 - user code may raise anything
                bad.append((index, self._blame(Fault.of(error))))
                continue
            if fans_out and isinstance(children, list) and len(children) > _MOST_CHILDREN:
                bad.append((index, self._blame(self._without_end())))
                continue
            self.standing.has_results = True
            if not fans_out:
                if children:
                    links.append(index)
                continue
            if not isinstance(children, list):
                raise UserCodeError(f"{self._stage.where} must return a list of rows, not one dict", hint="Return [row] for a single row.")
            made.extend(children)
            links.extend([index] * len(children))
            held += size
        packed = self._packed(made, links, bad)
        rows: Positions = np.array(links, dtype=np.int64)
        return Outcome(packed, rows, bad, ran)

    def _packed(self, made: list[object], links: list[int], bad: list[tuple[int, BadRow]]) -> pa.RecordBatch | None:
        """Return what was made as a batch. Where that is too much for one, the last row that something was made of is a bad one."""
        try:
            return batches.from_rows(made, self._stage.where) if made else None
        except TooLargeError as error:
            # All before it together hold less than what ends a call.
            bad.append((links[-1], self._blame(Fault(str(error), "", "too large", no_memory=False))))
        first = links.index(links[-1])
        del made[first:], links[first:]
        return batches.from_rows(made, self._stage.where) if made else None

    def _without_end(self) -> Fault:
        error = f"{self._stage.where} made more than {_MOST_CHILDREN:,} rows of one: does its generator end?"
        return Fault(f"{error} What is larger by nature belongs into several input rows.", "", "without end", no_memory=False)

    # -- errors ----------------------------------------------------------------------------------------------------------------------
    def _build(self, stage: StageCall, rows: int) -> tuple[Callable[[Any], Any], Any]:
        """Return what to call with a batch, and the object behind it; None when it is a plain function."""
        target = usercode.resolve(stage.target, stage.base_dir)
        if not isinstance(target, type):
            return (lambda value: target(value, **stage.args)) if stage.args else target, None
        owner: Any = self._guarded("constructor", lambda: target(**stage.args))
        if not callable(owner) and not _is_asynchronous(owner):
            raise UserCodeError(f"{stage.where}: {stage.target} is a class without __call__", hint="Define __call__(self, batch).")
        if rows and hasattr(owner, "expect"):
            self._guarded("expect()", lambda: owner.expect(rows))
        if hasattr(owner, "setup"):
            self._guarded("setup()", owner.setup)
        return owner if callable(owner) else lambda value: owner.collect(owner.submit(value)), owner

    def _blame(self, fault: Fault, error: str = "") -> BadRow:
        if not self.standing.has_results and not self._stage.tolerant:
            failures = self.standing.failures
            failures[fault.site] = failures.get(fault.site, 0) + 1
            if failures[fault.site] >= _HOPELESS_ROWS:
                raise UserCodeError(
                    f"{self._stage.where} fails on every row so far: {fault.error}",
                    hint="Nothing has succeeded yet, so the code is at fault; set quarantine.max_fraction to 1 to quarantine such rows.",
                    user_traceback=fault.traceback,
                    hopeless=True,
                )
        return BadRow(error or fault.error, "" if error else fault.traceback, self._stage.name)

    def _guarded(self, what: str, action: Any) -> Any:
        try:
            return action()
        except UserCodeError:
            raise
        except InfraError as error:
            # Another try may do, and no code is at fault.
            raise InfraError(f"{self._stage.where}: {what}: {error}", hint=error.hint) from error
        except Exception as error:
            raise UserCodeError(
                f"{self._stage.where}: {what} raised {type(error).__name__}: {error}", user_traceback=user_traceback(error)
            ) from error


def _error_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _nothing() -> None:
    """Nobody watches."""


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


def _is_asynchronous(owner: object) -> bool:
    return callable(getattr(owner, "submit", None)) and callable(getattr(owner, "collect", None))


def _is_no_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _bytes_of(value: object) -> int:
    """Return about how many bytes `value` takes in an array: a function of nothing but the value, so that calls can be repeated."""
    if isinstance(value, (int, float)):
        return _NUMBER_BYTES
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if isinstance(value, (bytes, bytearray)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values()))
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], (int, float)):
            # To look at each number takes longer than to convert them.
            return _NUMBER_BYTES * len(value)
        return sum(map(_bytes_of, value))
    if isinstance(value, np.ndarray) and value.dtype == object:
        return sum(map(_bytes_of, value.flat))
    size = getattr(value, "nbytes", _NUMBER_BYTES)
    return size if isinstance(size, int) else _NUMBER_BYTES


def _until(parts: Iterator[object], rows: int, where: str, given: passing.Given) -> Iterator[pa.RecordBatch]:
    """Yield what a generator yields, but no more than shows that it yields too much: it may never end."""
    returned = 0
    # Parts may be empty, though not for ever.
    for number, part in enumerate(parts):
        batch = batches.from_result(part, where, copy=True, start=returned, given=given)
        returned += batch.num_rows
        if returned > rows or number > 2 * rows + 64:
            what = f"{returned} without an end" if returned > rows else "batch after batch without any"
            raise UserCodeError(f"{where} got {rows} rows and yielded {what}", hint="Yield one value per input row, and then end.")
        yield batch

"""Slabs: anonymous shared memory that carries Arrow data between two processes without a copy through a pipe.

The writer owns a slab: it makes it, grows it by making a larger one, and passes its descriptor over a socket. A slab has no name:
nothing is left behind when both processes die.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa

from antinfer.worker.layout import ALIGNMENT, Column, Divided, Layout, Loose, divide, read
from antinfer.worker.pipeline import arrays

_PAGE = mmap.PAGESIZE
_FIRST_BYTES = 1 << 20
_FRAMING_BYTES = 4096
_MOST_COPIERS = 4
_CORES_A_COPIER = 4


class Slab:
    """One piece of shared memory, mapped into this process."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        """Map the memory behind `descriptor`, which this object closes at once: the mapping keeps the memory alive."""
        try:
            self._map = mmap.mmap(descriptor, size_bytes)
        finally:
            os.close(descriptor)
        self.size_bytes = size_bytes

    def write(self, batch: Divided) -> Layout | None:
        """Write `batch` from the start of the slab; return how it lies there, None when it does not fit."""
        sink = pa.FixedSizeBufferWriter(pa.py_buffer(self._map))
        # One core alone copies less than a fast device computes.
        sink.set_memcopy_threads(max(1, min(_MOST_COPIERS, pa.cpu_count() // _CORES_A_COPIER)))
        try:
            columns = tuple(_write_column(sink, column) for column in batch.columns)
            stream = None
            if batch.rest is not None:
                stream = _align(sink)
                with pa.ipc.new_stream(sink, batch.rest.schema) as writer:
                    writer.write_batch(batch.rest)
            return Layout(int(sink.tell()), stream, columns)
        except OSError:
            # The one way in which writing to memory fails: there is not enough of it.
            return None
        finally:
            sink.close()

    def view(self) -> memoryview:
        """Return the whole memory, for those who tell a device of it; it must not be kept."""
        return memoryview(self._map)

    def lend(self, layout: Layout, returned: Callable[[], object] | None = None) -> Loan:
        """Return the batch that the other side wrote, without a copy; `returned` is called, in any thread, once nobody holds on to it."""
        return Loan(memoryview(self._map)[: layout.length], layout, returned)

    def read(self, layout: Layout) -> pa.RecordBatch:
        """Return a copy of the batch that the other side wrote; the slab may be used again at once."""
        return read(pa.py_buffer(arrays.copy(np.frombuffer(self._map, dtype=np.uint8, count=layout.length))), layout)


class Loan:
    """A batch that lies in a slab: valid until the writer uses the slab again."""

    def __init__(self, view: memoryview, layout: Layout, returned: Callable[[], object] | None = None) -> None:
        self.batch: pa.RecordBatch | None = read(pa.py_buffer(view), layout)
        """The rows; None once given back."""
        self._watch = weakref.ref(view)
        if returned is not None:
            weakref.finalize(view, returned).atexit = False

    def give_back(self) -> bool:
        """Let go of the batch; False when somebody else still holds on to its memory, which must then not be used again."""
        self.batch = None
        return self._watch() is None


class SlabWriter:
    """The writing end of a slab, which grows with what is written."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._slab: Slab | None = None

    def write(self, batch: Divided) -> tuple[Layout, int | None]:
        """Write `batch`.

        Returns how it lies there and, when the slab is a new one, a descriptor for the other side, to be closed by the caller.

        Raises OSError when there is no memory left.
        """
        wanted = _room_for(batch)
        fresh: int | None = None
        while True:
            if self._slab is None or self._slab.size_bytes < wanted:
                fresh = self._grow(wanted, fresh)
            assert self._slab is not None
            layout = self._slab.write(batch)
            if layout is not None:
                return layout, fresh
            # Dictionaries travel beside the batch and are in no estimate.
            wanted = 2 * self._slab.size_bytes

    @property
    def size_bytes(self) -> int:
        return 0 if self._slab is None else self._slab.size_bytes

    def forget(self) -> None:
        """Write into a new slab from now on: the reader keeps the present one, or is a new process that has none."""
        self._slab = None

    def _grow(self, wanted: int, replaced: int | None) -> int:
        if replaced is not None:
            os.close(replaced)
        size = max(_FIRST_BYTES, wanted + wanted // 4)
        size += -size % _PAGE
        descriptor = os.memfd_create(self._name)
        try:
            os.posix_fallocate(descriptor, 0, size)
            self._slab = Slab(os.dup(descriptor), size)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


class SlabShelf:
    """The writing end of several slabs, by number: each is used again once the reader has given it back."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._writers: list[SlabWriter] = []
        self._free: set[int] = set()

    def write(self, batch: pa.RecordBatch) -> tuple[int, Layout, int | None]:
        """Write `batch` into a free slab; return the number of that, and what `SlabWriter.write` returns."""
        divided = divide([batch])
        number = self._pick(_room_for(divided))
        return number, *self._writers[number].write(divided)

    def give_back(self, numbers: Iterable[int]) -> None:
        """Take slabs back that the reader is done with."""
        self._free.update(numbers)

    @property
    def size_bytes(self) -> int:
        return sum(writer.size_bytes for writer in self._writers)

    def _pick(self, wanted: int) -> int:
        """Take the smallest of those that are large enough, so that each is about as large as what it holds; else the largest."""
        if not self._free:
            self._writers.append(SlabWriter(self._name))
            return len(self._writers) - 1
        by_size = sorted(self._free, key=lambda number: (self._writers[number].size_bytes, number))
        number = next((number for number in by_size if self._writers[number].size_bytes >= wanted), by_size[-1])
        self._free.remove(number)
        return number


def _room_for(batch: Divided) -> int:
    """Return about how many bytes `batch` takes."""
    size = batch.columns_bytes + _FRAMING_BYTES
    if batch.rest is not None:
        size += int(pa.ipc.get_record_batch_size(batch.rest)) + int(batch.rest.schema.serialize().size)
    return size


def _write_column(sink: pa.NativeFile, column: Loose) -> Column:
    starts = []
    for pieces in column.buffers:
        starts.append(_align(sink))
        for piece in pieces:
            sink.write(piece)
    return Column(column.at, column.name, column.kind, column.shape, tuple(starts), column.sizes)


def _align(sink: pa.NativeFile) -> int:
    sink.write(bytes(-sink.tell() % ALIGNMENT))
    return int(sink.tell())

"""Slabs: anonymous shared memory that carries Arrow data between two processes without a copy through a pipe.

The writer owns a slab: it makes it, grows it by making a larger one, and passes its descriptor over a socket. A slab has no name:
nothing is left behind when both processes die.
"""

from __future__ import annotations

import mmap
import os
import weakref

import numpy as np
import pyarrow as pa

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

    def write(self, batch: pa.RecordBatch) -> int | None:
        """Write `batch` as an Arrow IPC stream from the start of the slab; return its length in bytes, None when it does not fit."""
        sink = pa.FixedSizeBufferWriter(pa.py_buffer(self._map))
        # One core alone copies less than a fast device computes.
        sink.set_memcopy_threads(max(1, min(_MOST_COPIERS, pa.cpu_count() // _CORES_A_COPIER)))
        try:
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            return int(sink.tell())
        except OSError:
            # The one way in which writing to memory fails: there is not enough of it.
            return None
        finally:
            sink.close()

    def view(self) -> memoryview:
        """Return the whole memory, for those who tell a device of it; it must not be kept."""
        return memoryview(self._map)

    def lend(self, length: int) -> Loan:
        """Return the batch that the other side wrote, `length` bytes long, without a copy."""
        return Loan(memoryview(self._map)[:length])

    def read(self, length: int) -> pa.RecordBatch:
        """Return a copy of the batch that the other side wrote; the slab may be used again at once."""
        return _decode(pa.py_buffer(arrays.copy(np.frombuffer(self._map, dtype=np.uint8, count=length))))


class Loan:
    """A batch that lies in a slab: valid until the writer uses the slab again."""

    def __init__(self, view: memoryview) -> None:
        self.batch: pa.RecordBatch | None = _decode(pa.py_buffer(view))
        """The rows; None once given back."""
        self._watch = weakref.ref(view)

    def give_back(self) -> bool:
        """Let go of the batch; False when somebody else still holds on to its memory, which must then not be used again."""
        self.batch = None
        return self._watch() is None


class SlabWriter:
    """The writing end of a slab, which grows with what is written."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._slab: Slab | None = None

    def write(self, batch: pa.RecordBatch) -> tuple[int, int | None]:
        """Write `batch`; return its length and, when the slab is a new one, a descriptor for the other side, to be closed by the caller.

        Raises OSError when there is no memory left.
        """
        wanted = pa.ipc.get_record_batch_size(batch) + int(batch.schema.serialize().size) + _FRAMING_BYTES
        fresh: int | None = None
        while True:
            if self._slab is None or self._slab.size_bytes < wanted:
                fresh = self._grow(wanted, fresh)
            assert self._slab is not None
            length = self._slab.write(batch)
            if length is not None:
                return length, fresh
            # Dictionaries travel beside the batch and are in no estimate.
            wanted = 2 * self._slab.size_bytes

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


def _decode(buffer: pa.Buffer) -> pa.RecordBatch:
    with pa.ipc.open_stream(buffer) as stream:
        return stream.read_next_batch()

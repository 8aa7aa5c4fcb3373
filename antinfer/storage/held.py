"""Record batches that are held in memory, and what they take there."""

from __future__ import annotations

import pyarrow as pa


class HeldBatches:
    """Batches that wait for something. Those that are cut from one share its dictionaries, which count once."""

    def __init__(self) -> None:
        self.size_bytes = 0
        """What they take in memory together."""
        self._batches: list[pa.RecordBatch] = []
        self._dictionaries: set[int] = set()
        """Addresses."""

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self.size_bytes += sum(self._added_bytes(column) for column in batch.columns)

    def take(self) -> list[pa.RecordBatch]:
        """Return all, in order, and hold none any more."""
        batches, self._batches, self.size_bytes = self._batches, [], 0
        self._dictionaries.clear()
        return batches

    def _added_bytes(self, column: pa.Array) -> int:
        if not pa.types.is_dictionary(column.type):
            return int(column.nbytes)
        address = next((buffer.address for buffer in reversed(column.dictionary.buffers()) if buffer is not None), 0)
        if address in self._dictionaries:
            return int(column.indices.nbytes)
        self._dictionaries.add(address)
        return int(column.nbytes)


def apart(batch: pa.RecordBatch, source: pa.RecordBatch) -> pa.RecordBatch:
    """Return `batch`, which is some columns of `source`, in memory of its own unless it is most of it.

    All columns of a batch may lie in one buffer, and the least of them keeps all of it.
    """
    return pa.concat_batches([batch]) if 2 * batch.nbytes < source.nbytes else batch

from __future__ import annotations

import pyarrow as pa

SIDE = 224
TENSOR = pa.fixed_shape_tensor(pa.uint8(), (SIDE, SIDE, 3))


def as_tensors(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Call fixed-size bytes what they are. The memory stays the same."""
    column = batch.column("pixels")
    size = column.type.byte_width
    values = pa.Array.from_buffers(pa.uint8(), len(column) * size, [None, column.buffers()[1]], offset=column.offset * size)
    tensors = pa.ExtensionArray.from_storage(TENSOR, pa.FixedSizeListArray.from_arrays(values, size))
    return pa.RecordBatch.from_arrays([tensors], names=["pixels"])

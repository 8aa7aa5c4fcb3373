"""Arrays of counts as short JSON."""

from __future__ import annotations

import base64
import zlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_READABLE: Final = 64
"""Up to this many counts are written as a plain list."""

Counts = NDArray[np.int64]


def pack_counts(counts: Counts) -> list[int] | str:
    """Return non-negative `counts` as a list, or, when they are many, as ``<dtype>:<base64 of the compressed bytes>``."""
    if counts.size <= _READABLE:
        plain: list[int] = counts.tolist()
        return plain
    narrow = counts.astype(np.min_scalar_type(int(counts.max())).newbyteorder("<"))
    return f"u{narrow.itemsize}:{base64.b64encode(zlib.compress(narrow.tobytes(), 6)).decode('ascii')}"


def unpack_counts(packed: Any, size: int) -> Counts:
    """Read the `size` counts that `pack_counts` wrote. Raises ValueError when they are not that many or not readable."""
    if isinstance(packed, str):
        width, _, text = packed.partition(":")
        if width not in ("u1", "u2", "u4", "u8"):
            raise ValueError(f"not packed counts: {packed[:20]!r}")
        try:
            data = zlib.decompress(base64.b64decode(text, validate=True))
        except zlib.error as error:
            raise ValueError(f"packed counts are damaged: {error}") from error
        counts = np.frombuffer(data, dtype=f"<{width}").astype(np.int64)
    else:
        counts = np.asarray(packed, dtype=np.int64)
    if counts.shape != (size,):
        raise ValueError(f"{counts.size} counts where {size} were expected")
    return counts

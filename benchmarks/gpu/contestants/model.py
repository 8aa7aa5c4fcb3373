"""The model as a plain loop uses it: pixels in host memory in, labels in host memory out, one batch behind."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu import networks

Answer = tuple[NDArray[np.int32], NDArray[np.float32]]


class Labels:
    """Classifies pinned batches; copies, computes and copies back without waiting in between."""

    def __init__(self, network: str, device: str, *, compiled: bool = False) -> None:
        self._device = device
        self._model: Any = networks.on_device(networks.classifier(network), device)
        if compiled:
            self._model = torch.compile(self._model, dynamic=False)
        self._waiting: deque[tuple[Any, Any, Any, Any]] = deque()

    @torch.inference_mode()
    def submit(self, pixels: torch.Tensor, tag: Any) -> None:
        """Begin a batch, rows x side x side x 3 bytes."""
        label, score = self._model(pixels.to(self._device, non_blocking=True))
        label, score = (each.to("cpu", non_blocking=True) for each in (label, score))
        event: Any = None
        if self._device != "cpu":
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
        # The pixels stay with it: the device may not have read them yet.
        self._waiting.append((event, label, score, (tag, pixels)))

    def collect(self) -> tuple[Any, Answer]:
        """Wait for the batch begun first; return its tag, and its labels and scores."""
        event, label, score, (tag, _) = self._waiting.popleft()
        if event is not None:
            event.synchronize()
        return tag, (label.numpy(), score.numpy())

    def __len__(self) -> int:
        """Batches begun and not collected."""
        return len(self._waiting)

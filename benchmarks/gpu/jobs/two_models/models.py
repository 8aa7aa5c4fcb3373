from __future__ import annotations

from typing import Any

from antinfer.predictors import TorchPredictor
from benchmarks.gpu.ticks import Ticks


class Detector(TorchPredictor):
    """Finds places; with `keep`, hands the pixels on as they came."""

    def __init__(self, detector: str = "small", keep: bool = True, ticks: str = "", dtype: str | None = "bf16") -> None:
        super().__init__(
            "benchmarks.gpu.networks:detector",
            model_args={"size": detector},
            inputs=["pixels"],
            outputs=["corners", "scores"],
            dtype=dtype,
            channels_last=True,
        )
        self._keep = keep
        self._folder = ticks
        self._ticks: Ticks | None = None

    def setup(self) -> None:
        super().setup()
        self._ticks = Ticks(self._folder)

    def submit(self, batch: Any) -> Any:
        return super().submit(batch), batch["pixels"]

    def collect(self, ticket: Any) -> dict[str, Any]:
        running, pixels = ticket
        results = super().collect(running)
        if self._ticks is not None:
            self._ticks.add(len(pixels))
        return results | {"pixels": pixels} if self._keep else results


class Embedder(TorchPredictor):
    """A vector for each place."""

    def __init__(self, embedder: str = "resnet18", dtype: str | None = "bf16") -> None:
        super().__init__(
            "benchmarks.gpu.networks:embedder",
            model_args={"network": embedder},
            inputs=["crop"],
            outputs=["vector"],
            dtype=dtype,
            channels_last=True,
        )

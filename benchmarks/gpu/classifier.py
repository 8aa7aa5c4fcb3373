"""Two predictors around the same model: antinfer's own, and what one writes without it."""

from __future__ import annotations

from typing import Any

import numpy as np

from antinfer.predictors import TorchPredictor
from benchmarks.gpu.ticks import Ticks


class Classifier(TorchPredictor):
    """Labels pixels; says in the folder `ticks` when it did."""

    def __init__(self, network: str = "resnet50", compiled: bool = False, ticks: str = "", dtype: str | None = "bf16") -> None:
        super().__init__(
            "benchmarks.gpu.networks:classifier",
            model_args={"network": network},
            inputs=["pixels"],
            outputs=["label", "score"],
            dtype=dtype,
            channels_last=True,
            compile=compiled,
            example={"pixels": {"shape": [224, 224, 3], "dtype": "uint8"}},
        )
        self._folder = ticks
        self._ticks: Ticks | None = None

    def setup(self) -> None:
        super().setup()
        # Only now: what warmed the model up is no result.
        self._ticks = Ticks(self._folder)

    def collect(self, ticket: Any) -> dict[str, Any]:
        results = super().collect(ticket)
        if self._ticks is not None:
            self._ticks.add(len(results["label"]))
        return results


class Plain:
    """The same without antinfer's predictor: one batch at a time, copied from where it lies, waited for."""

    def __init__(self, network: str = "resnet50", compiled: bool = False, ticks: str = "", dtype: str | None = "bf16") -> None:
        import torch

        from benchmarks.gpu.contestants.model import Labels

        self._torch = torch
        self._labels = Labels(network, "cuda" if torch.cuda.is_available() else "cpu", compiled=compiled)
        self._ticks = Ticks(ticks)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._labels.submit(self._torch.from_numpy(np.ascontiguousarray(batch["pixels"])), None)
        _, (label, score) = self._labels.collect()
        self._ticks.add(len(label))
        return {"label": label, "score": score}

"""The models of all contestants: random weights from a fixed seed, pixels in, label and score out."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

CLASSES: Final = 1_000
_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)


class Normalised(nn.Module):
    """Bytes, rows x height x width x 3, to what a network wants: zero mean, unit deviation, channels first in shape and last in memory."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", torch.tensor([1 / (255 * each) for each in _DEVIATION]).view(1, 3, 1, 1))
        self.register_buffer("shift", torch.tensor([-mean / each for mean, each in zip(_MEAN, _DEVIATION, strict=True)]).view(1, 3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scale: Any = self.scale
        # Not a copy: what lies in memory row by row, pixel by pixel, is channels_last.
        planes = pixels.permute(0, 3, 1, 2)
        result: torch.Tensor = self.network(planes.to(scale.dtype) * scale + self.shift)
        return result


class Classifier(Normalised):
    """The best of a thousand classes, and its probability."""

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        score, label = super().forward(pixels).float().softmax(1).max(1)
        return label.to(torch.int32), score


class Detector(Normalised):
    """The `BOXES` places of a picture that look most like something: left and top as whole pixels, and how much each looks like it."""

    BOXES: Final = 4

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        heat = super().forward(pixels).float()
        score, cell = heat.flatten(1).topk(self.BOXES, dim=1)
        columns = heat.shape[-1]
        step = pixels.shape[1] // columns
        corners = torch.stack([cell % columns, cell // columns], dim=2) * step
        return corners.to(torch.int32), score.sigmoid()


class Embedder(Normalised):
    """A vector of unit length for each picture."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(super().forward(pixels).float(), dim=1)


def classifier(network: str = "resnet50") -> nn.Module:
    """Return ``resnet50``, ``resnet18``, or ``tiny``, which is for machines without a GPU, with its normalisation and its choice."""
    torch.manual_seed(0)
    return Classifier(_tiny(CLASSES) if network == "tiny" else _residual(network, CLASSES)).eval()


def detector(size: str = "small") -> nn.Module:
    """Return a stack of convolutions that gives a 14 x 14 map of heat."""
    torch.manual_seed(1)
    widths = (8, 8, 8) if size == "tiny" else (32, 64, 128)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for before, after in ((widths[0], widths[1]), (widths[1], widths[2])):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.Conv2d(widths[2], widths[2], 3, 1, 1), nn.BatchNorm2d(widths[2]), nn.ReLU(), nn.Conv2d(widths[2], 1, 1)]
    return Detector(nn.Sequential(*layers)).eval()


def embedder(network: str = "resnet18") -> nn.Module:
    """Return what makes 128 numbers of a picture."""
    torch.manual_seed(2)
    return Embedder(_tiny(128) if network == "tiny" else _residual(network, 128)).eval()


def on_device(model: nn.Module, device: str) -> nn.Module:
    """Return the model as every contestant runs it: bf16 and channels_last on a GPU, float32 on a CPU."""
    if device != "cpu":
        model = model.to(device=device, dtype=torch.bfloat16)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _residual(network: str, outputs: int) -> nn.Module:
    import torchvision

    made: nn.Module = getattr(torchvision.models, network)(weights=None, num_classes=outputs)
    return made


def _tiny(outputs: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(3 * 7 * 7, outputs))

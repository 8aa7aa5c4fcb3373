"""Whose faces are in the picture? dlib's face detector and its face embedder (Davis King, 2017), both from packages."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import dlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

Batch = dict[str, np.ndarray]
CHIP_SIDE = 150


def decode(batch: Batch) -> dict[str, list]:
    """Decode photographs, each of its own size: the pixels as bytes, and the height that gives them their shape back."""
    photographs = [_decode(data) for data in batch["bytes"]]
    return {"pixels": [photograph.tobytes() for photograph in photographs], "height": [len(photograph) for photograph in photographs]}


def _decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as photograph:
        return np.asarray(photograph.convert("RGB"))


def shaped(pixels: bytes, height: int) -> np.ndarray:
    """Return the photograph: uint8, height x width x 3."""
    return np.frombuffer(pixels, np.uint8).reshape(height, -1, 3)


class Detector:
    """Frontal faces of at least 40 pixels, by histograms of oriented gradients."""

    def __init__(self) -> None:
        self.find = dlib.get_frontal_face_detector()

    def __call__(self, batch: Batch) -> dict[str, object]:
        boxes = [self.boxes(shaped(*photograph)) for photograph in zip(batch["pixels"], batch["height"], strict=True)]
        return {**batch, "boxes": pa.array(boxes, pa.list_(pa.list_(pa.int32(), 4)))}

    def boxes(self, photograph: np.ndarray) -> list[list[int]]:
        """Return left, top, right and bottom of every face; parts of a box may lie outside of the photograph."""
        twice_as_large = 1  # finds faces half the size of the 80 pixels that it was trained on
        return [[box.left(), box.top(), box.right(), box.bottom()] for box in self.find(photograph, twice_as_large)]


class Chips:
    """Cuts faces out, turned and scaled so that eyes and nose are always in the same place."""

    def __init__(self) -> None:
        self.landmarks = dlib.shape_predictor(weights("shape_predictor_5_face_landmarks.dat"))

    def __call__(self, row: dict[str, object]) -> list[dict[str, object]]:
        photograph = shaped(row["pixels"], row["height"])
        return [{"box": box, "chip": self.chip(photograph, box)} for box in row["boxes"]]

    def chip(self, photograph: np.ndarray, box: np.ndarray) -> np.ndarray:
        landmarks = self.landmarks(photograph, dlib.rectangle(*map(int, box)))
        return dlib.get_face_chip(photograph, landmarks, size=CHIP_SIDE)


class Embedder:
    """A residual network: faces of one person are less than 0.6 apart, those of two are more, nearly always."""

    def __init__(self) -> None:
        self.model = dlib.face_recognition_model_v1(weights("dlib_face_recognition_resnet_model_v1.dat"))

    def __call__(self, batch: Batch) -> Batch:
        embeddings = self.model.compute_face_descriptor(list(batch["chip"]))
        return {"box": batch["box"], "embedding": np.array(embeddings, np.float32)}


def count(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Say beside the faces how many there are."""
    return batch.append_column("n_faces", pc.list_value_length(batch["faces"]))


def weights(name: str) -> str:
    """Return the path of a model of face-recognition-models; the package itself is not imported, newer setuptools lack what it wants."""
    spec = find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the faces example needs its models: pip install 'antinfer[demo-faces]'")
    return str(Path(spec.submodule_search_locations[0]) / "models" / name)

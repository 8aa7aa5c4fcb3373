"""DecodeJpeg on the CPU."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

from antinfer.errors import BadRows, UserCodeError
from antinfer.predictors import DecodeJpeg

PIL = pytest.importorskip("PIL.Image")


def jpeg(height: int, width: int, mode: str = "RGB", **keys: Any) -> bytes:
    """A picture whose left half is dark and whose right half is light: no cut may move its middle."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[:, width // 2 :] = 200
    image = PIL.fromarray(pixels).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **keys)
    return file.getvalue()


def batch(*files: Any) -> dict[str, Any]:
    column = np.empty(len(files), dtype=object)
    column[:] = files
    return {"jpeg": column, "id": np.arange(len(files))}


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (224, 224), (100, 90), (1000, 64)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_middle_is_cut_out_and_scaled(height: int, width: int, mode: str) -> None:
    image = DecodeJpeg()(batch(jpeg(height, width, mode)))["image"]
    assert image.shape == (1, 224, 224, 3) and image.dtype == np.uint8
    assert image[0, :, 40].mean() < 20 and abs(float(image[0, :, -40].mean()) - 200) < 20
    edge = int(np.argmax(image[0, 112, :, 0] > 100))
    assert abs(edge - 112) <= 3


def test_it_is_what_scaling_first_would_give() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    whole = PIL.fromarray(noise).resize((600, 400), PIL.Resampling.BICUBIC)
    file = io.BytesIO()
    whole.save(file, "JPEG", quality=95)
    ours = DecodeJpeg(resize=128, crop=112)(batch(file.getvalue()))["image"][0].astype(int)
    scaled = PIL.open(io.BytesIO(file.getvalue())).resize((192, 128), PIL.Resampling.BILINEAR).crop((40, 8, 152, 120))
    assert np.abs(ours - np.asarray(scaled).astype(int)).mean() < 2


def test_bad_files_are_named_and_the_others_go_on() -> None:
    good = jpeg(300, 300)
    decode = DecodeJpeg(keep=["id"])
    with pytest.raises(BadRows) as caught:
        decode(batch(good, b"no picture", good[: len(good) // 3], None, b"", good))
    assert sorted(caught.value.errors) == [1, 2, 3, 4]
    result = decode(batch(good, good))
    assert result["id"].tolist() == [0, 1] and len(result["image"]) == 2


def test_wrong_use_is_told() -> None:
    with pytest.raises(UserCodeError, match="crop must be between 1 and resize"):
        DecodeJpeg(resize=100, crop=200)
    with pytest.raises(UserCodeError, match="no column 'picture'"):
        DecodeJpeg(column="picture")(batch(jpeg(10, 10)))


def test_without_a_device_submit_does_the_same() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: see tests/gpu")
    files = batch(jpeg(375, 500))
    assert np.array_equal(DecodeJpeg().submit(files)["image"], DecodeJpeg()(files)["image"])


@pytest.mark.parametrize("call", ["setup_on_gpu", "submit"])
def test_a_device_without_torchvision_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    decode = DecodeJpeg()
    with pytest.raises(UserCodeError, match="needs torchvision") as caught:
        decode.setup_on_gpu() if call == "setup_on_gpu" else decode.submit(batch(jpeg(10, 10)))
    assert "pip install torchvision" in caught.value.hint


def test_without_torch_on_gpu_is_refused_and_the_cpu_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserCodeError, match="needs torch,") as caught:
        DecodeJpeg().setup_on_gpu()
    assert "pip install torch" in caught.value.hint
    assert DecodeJpeg()(batch(jpeg(10, 10)))["image"].shape == (1, 224, 224, 3)


def test_on_gpu_asks_for_nothing_where_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    DecodeJpeg().setup_on_gpu()
    assert DecodeJpeg().submit(batch(jpeg(10, 10)))["image"].shape == (1, 224, 224, 3)

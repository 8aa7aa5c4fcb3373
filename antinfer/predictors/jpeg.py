"""JPEG decoding, on the CPU or on the GPU, with one result: the middle of the picture at one size, as bytes in the order NHWC, RGB.

What is left is what scaling the shorter side to `resize` and cutting the middle `crop` x `crop` out would leave, but the square is cut out
of the original and only that is scaled. So the CPU and the GPU scale as little as possible, and differ by rounding alone.
"""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antinfer.errors import BadRows, UserCodeError

Image = NDArray[np.uint8]
_NO_MEMORY = "out of memory"


class DecodeJpeg:
    """Decodes a column of JPEG files to ``uint8[rows, crop, crop, 3]``.

    `__call__` decodes on the CPU, with OpenCV or else Pillow. As `on_gpu` of a stage in front of a predictor, `submit` decodes in the
    predictor's process on its device (torchvision, nvJPEG), in a thread of its own, and the pictures stay there. A file that is damaged is
    a bad row; the other rows of its batch go on.
    """

    def __init__(self, column: str = "jpeg", into: str = "image", resize: int = 256, crop: int = 224, keep: Sequence[str] = ()) -> None:
        """Check the arguments.

        Args:
            column: Column with the files' bytes.
            into: Name of the result.
            resize: Length of the shorter side before the middle is cut out, in pixels.
            crop: Side of what is cut out, at most `resize`.
            keep: Other columns to pass on as they are.

        Raises:
            UserCodeError: The sizes contradict each other.
        """
        if not 0 < crop <= resize:
            raise UserCodeError(f"DecodeJpeg: crop must be between 1 and resize ({resize}), not {crop}")
        self._column = column
        self._into = into
        self._resize = resize
        self._crop = crop
        self._keep = list(keep)
        self._decode: Callable[[bytes], Image] | None = None
        self._aside: ThreadPoolExecutor | None = None
        self._read: deque[tuple[Any, list[Any]]] = deque()
        """Whole pictures that the device may still read, each batch with an event behind that."""

    def setup_on_gpu(self) -> None:
        """Make sure, as `on_gpu` of a stage, that the device can be used. Raises UserCodeError when a library is missing."""
        if _torch().cuda.is_available():
            _require_torchvision()

    def teardown(self) -> None:
        """End the thread, once it has done the batch at hand."""
        if self._aside is not None:
            self._aside.shutdown(cancel_futures=True)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Decode on the CPU. Raises BadRows naming the rows that cannot be decoded."""
        files = self._files(batch)
        images = np.empty((len(files), self._crop, self._crop, 3), dtype=np.uint8)
        bad: dict[int, str] = {}
        for row, file in enumerate(files):
            try:
                images[row] = self._on_cpu(file)
            except (ValueError, OSError, SyntaxError) as error:
                bad[row] = str(error)
        if bad:
            raise BadRows(bad)
        return {self._into: images, **{name: batch[name] for name in self._keep}}

    def submit(self, batch: Mapping[str, Any]) -> dict[str, Any] | Future[dict[str, Any]]:
        """Decode on the GPU, in a thread that does one batch after the other, so that whoever launches the model need not wait for this.

        Where there is no GPU, decode at once on the CPU. Raises, or has the future raise, BadRows and UserCodeError.
        """
        torch = _torch()
        if not torch.cuda.is_available():
            return self(batch)
        if self._aside is None:
            # Here, where its absence is not the fault of a row.
            _require_torchvision()
            self._aside = ThreadPoolExecutor(1, "decode-jpeg")
        return self._aside.submit(self._decode_on_gpu, batch, torch.cuda.current_device())

    def _files(self, batch: Mapping[str, Any]) -> Sequence[bytes]:
        for name in (self._column, *self._keep):
            if name not in batch:
                raise UserCodeError(f"DecodeJpeg: there is no column {name!r}", hint=f"There are: {', '.join(batch)}.")
        files: Sequence[bytes] = batch[self._column]
        return files

    # -- CPU -------------------------------------------------------------------------------------------------------------------------
    def _on_cpu(self, file: bytes) -> Image:
        if not isinstance(file, bytes) or not file:
            raise ValueError("there is no file")
        if self._decode is None:
            self._decode = self._choose()
        return self._decode(file)

    def _choose(self) -> Callable[[bytes], Image]:
        try:
            import cv2
        except ImportError:
            pass
        else:
            # The stage has threads enough; those of OpenCV would only stand in their way.
            cv2.setNumThreads(1)
            return self._with_opencv
        try:
            import PIL.Image  # noqa: F401 - whether it is there
        except ImportError as error:
            raise UserCodeError("DecodeJpeg needs OpenCV or Pillow", hint="pip install opencv-python-headless.") from error
        return self._with_pillow

    def _with_opencv(self, file: bytes) -> Image:
        import cv2

        whole = cv2.imdecode(np.frombuffer(file, dtype=np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if whole is None:
            raise ValueError("not a JPEG file, or a damaged one")
        top, left, side = self._square(*whole.shape[:2])
        how = cv2.INTER_AREA if side > self._crop else cv2.INTER_LINEAR
        small = cv2.resize(whole[top : top + side, left : left + side], (self._crop, self._crop), interpolation=how)
        image: Image = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        return image

    def _with_pillow(self, file: bytes) -> Image:
        import PIL.Image

        with PIL.Image.open(io.BytesIO(file), formats=("JPEG",)) as opened:
            whole = opened.convert("RGB")
        top, left, side = self._square(whole.height, whole.width)
        box = (left, top, left + side, top + side)
        return np.asarray(whole.resize((self._crop, self._crop), PIL.Image.Resampling.BILINEAR, box=box))

    def _square(self, height: int, width: int) -> tuple[int, int, int]:
        """Return top, left and side of the square to cut out of a picture, in its pixels."""
        side = max(1, round(min(height, width) * self._crop / self._resize))
        return (height - side) // 2, (width - side) // 2, side

    # -- GPU -------------------------------------------------------------------------------------------------------------------------
    def _decode_on_gpu(self, batch: Mapping[str, Any], device: int) -> dict[str, Any]:
        import torch

        bad: dict[int, str] = {}
        files = self._files(batch)
        # As the model's own inputs are made: one that is compiled would be compiled again for others.
        with torch.cuda.device(device), torch.inference_mode():
            whole, small = self._on_gpu(files, bad)
            if bad:
                raise BadRows(bad)
            images = self._scaled(len(files), whole, small)
            self._keep_until_read([*whole.values()])
            return {self._into: images.permute(0, 2, 3, 1), **{name: batch[name] for name in self._keep}}

    def _on_gpu(self, files: Sequence[bytes], bad: dict[int, str]) -> tuple[dict[int, Any], dict[int, Any]]:
        """Return whole pictures and small ones by row, as ``uint8[3, height, width]`` on the device; put rows without one into `bad`."""
        import torch

        whole: dict[int, Any] = {}
        small: dict[int, Any] = {}
        todo = [list(range(len(files)))]
        while todo:
            rows = todo.pop()
            try:
                whole.update(zip(rows, self._with_torchvision([files[row] for row in rows]), strict=True))
            except (RuntimeError, ValueError, TypeError) as error:
                if isinstance(error, torch.cuda.OutOfMemoryError) or _NO_MEMORY in str(error):
                    raise
                if len(rows) > 1:
                    todo += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
                    continue
                # The GPU does not know every kind of JPEG.
                try:
                    small[rows[0]] = torch.from_numpy(self._on_cpu(files[rows[0]]).copy()).permute(2, 0, 1).cuda()
                except (ValueError, OSError, SyntaxError) as refused:
                    bad[rows[0]] = str(refused)
        return whole, small

    @staticmethod
    def _with_torchvision(files: Sequence[bytes]) -> list[Any]:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        with warnings.catch_warnings():
            # The bytes are read only, and nobody writes to them.
            warnings.simplefilter("ignore", UserWarning)
            encoded = [torch.frombuffer(file, dtype=torch.uint8) for file in files]
        return list(decode_jpeg(encoded, mode=ImageReadMode.RGB, device="cuda"))

    def _scaled(self, count: int, whole: Mapping[int, Any], small: Mapping[int, Any]) -> Any:
        """Cut out and scale whole pictures, those of one size together: one launch instead of hundreds; put them beside the small ones."""
        import torch

        sizes: dict[tuple[int, int], list[int]] = {}
        for row, image in whole.items():
            sizes.setdefault((image.shape[1], image.shape[2]), []).append(row)
        device = next(iter([*whole.values(), *small.values()])).device
        layout = torch.channels_last
        made = torch.empty((count, 3, self._crop, self._crop), dtype=torch.uint8, device=device, memory_format=layout)
        for (height, width), rows in sizes.items():
            top, left, side = self._square(height, width)
            # What slicing would give, in half the time: there are hundreds of pictures, and the device may be waiting.
            at, strides = top * width + left, (height * width, width, 1)
            squares = torch.stack([whole[row].as_strided((3, side, side), strides, at) for row in rows])
            if side != self._crop:
                target = (self._crop, self._crop)
                squares = torch.nn.functional.interpolate(squares.float(), size=target, mode="bilinear", antialias=side > self._crop)
                squares = squares.round_().clamp_(0, 255).to(torch.uint8)
            # From pinned memory, or this would wait for the batch before.
            made[torch.tensor(rows, pin_memory=True).to(device, non_blocking=True)] = squares
        for row, image in small.items():
            made[row] = image
        return made

    def _keep_until_read(self, images: list[Any]) -> None:
        """Hold on to `images` until the device has read them: the decoder, on a stream of its own, may be given their memory at once."""
        import torch

        while self._read and self._read[0][0].query():
            self._read.popleft()
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._read.append((event, images))


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        what = f"DecodeJpeg: on_gpu needs torch, which cannot be imported: {error}"
        raise UserCodeError(what, hint="pip install torch torchvision.") from error
    return torch


def _require_torchvision() -> None:
    """Raise UserCodeError without torchvision's decoder. One for the CPU in its place would hold up the device unseen."""
    try:
        import torchvision.io  # noqa: F401 - whether it is there
    except (ImportError, RuntimeError) as error:
        # A RuntimeError: one that was built for another torch.
        raise UserCodeError(
            f"DecodeJpeg: on_gpu needs torchvision, which cannot be imported: {error}",
            hint="pip install torchvision, of the version that fits torch; or leave on_gpu out, and pictures are decoded on the CPU.",
        ) from error

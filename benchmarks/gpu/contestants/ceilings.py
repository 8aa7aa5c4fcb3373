"""What the parts can do alone: ``python -m benchmarks.gpu.contestants.ceilings decode|beside|model|gpu_decode``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

BATCH: Final = 256
_DISTINCT: Final = 1_024
_WARM_UP: Final = 1.0
"""Seconds that are not counted."""
_READ_RATE: Final = 8_000.0
"""Pictures a second that the reader reads at most: about what the decoding beside it would take from it."""


def decode(options: argparse.Namespace) -> dict[str, Any]:
    """Decode on so many threads, from memory and into nowhere."""
    jpegs = _some(options.source)
    return _threads(options, lambda thread: _forever(jpegs, thread))


def beside(options: argparse.Namespace) -> dict[str, Any]:
    """The same beside what else a pipeline needs cores for: a process that reads the files, and one that feeds the model."""
    jpegs = _some(options.source)
    context = multiprocessing.get_context("spawn")
    stop, ready = context.Event(), context.Event()
    predictor = context.Process(target=_predict, args=(options.network, options.device, stop, ready), daemon=True)
    predictor.start()
    if not ready.wait(120):
        raise SystemExit("the predictor did not start")
    reader = context.Process(target=_read, args=(options.source, stop), daemon=True)
    reader.start()
    try:
        return _threads(options, lambda thread: _forever(jpegs, thread))
    finally:
        stop.set()
        predictor.join(30)
        reader.join(30)


def model(options: argparse.Namespace) -> dict[str, Any]:
    """The model on pixels that lie on the device already."""
    import torch

    from benchmarks.gpu import networks

    made: Any = networks.on_device(networks.classifier(options.network), options.device)
    if options.compiled:
        made = torch.compile(made, dynamic=False)
    pixels = torch.randint(0, 256, (options.batch, 224, 224, 3), dtype=torch.uint8, device=options.device)
    with torch.inference_mode():
        return _on_device(options, lambda: made(pixels), options.batch)


def gpu_decode(options: argparse.Namespace) -> dict[str, Any]:
    """Decode on the device alone, in lists of a batch: with ``ours``, or as one writes it with torchvision, for ``plain``."""
    jpegs = _some(options.source)
    lists = [jpegs[start : start + BATCH] for start in range(0, len(jpegs), BATCH)]
    turn = iter(range(1 << 62))
    made = _our_decoder() if options.decoder == "ours" else _plain_decoder(options.device)
    return _on_device(options, lambda: made(lists[next(turn) % len(lists)]), BATCH)


def _our_decoder() -> Callable[[list[bytes]], object]:
    from antinfer.predictors import DecodeJpeg

    decoder = DecodeJpeg("jpeg", "pixels")

    def decoded(jpegs: list[bytes]) -> object:
        made = decoder.submit({"jpeg": jpegs})
        return made.result() if isinstance(made, Future) else made

    return decoded


def _plain_decoder(device: str) -> Callable[[list[bytes]], object]:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    def decoded(jpegs: list[bytes]) -> object:
        data = [torch.frombuffer(bytearray(each), dtype=torch.uint8) for each in jpegs]
        whole = torch.stack(decode_jpeg(data, mode=ImageReadMode.RGB, device=device))
        size = (256, round(256 * whole.shape[3] / whole.shape[2]))
        scaled = torch.nn.functional.interpolate(whole.float(), size=size, mode="bilinear", antialias=True)
        left = (size[1] - 224) // 2
        return scaled[:, :, 16:240, left : left + 224].round().clamp(0, 255).to(torch.uint8)

    return decoded


def _some(source: Path) -> list[bytes]:
    jpegs: list[bytes] = []
    for path in sorted(source.glob("*.parquet")):
        jpegs += pq.read_table(path, columns=["jpeg"])["jpeg"].to_pylist()
        if len(jpegs) >= _DISTINCT:
            break
    return jpegs[:_DISTINCT]


def _forever(jpegs: list[bytes], thread: int) -> Iterator[list[bytes]]:
    start = thread * BATCH
    while True:
        yield [jpegs[n % len(jpegs)] for n in range(start, start + BATCH)]
        start += BATCH


def _threads(options: argparse.Namespace, batches: Callable[[int], Iterator[list[bytes]]]) -> dict[str, Any]:
    """Decode what `batches` yields for each thread; return the rate between warming up and the end."""
    from benchmarks.gpu import pictures

    counts = [0] * options.threads
    ending = threading.Event()

    def work(thread: int) -> None:
        for jpegs in batches(thread):
            # A batch takes a third of a second: counted in parts, or the ends would matter.
            for start in range(0, len(jpegs), 32):
                pictures.stacked(jpegs[start : start + 32])
                counts[thread] += len(jpegs[start : start + 32])
                if ending.is_set():
                    return

    for thread in range(options.threads):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    time.sleep(_WARM_UP)
    before, started = sum(counts), time.perf_counter()
    time.sleep(options.seconds)
    done, seconds = sum(counts) - before, time.perf_counter() - started
    ending.set()
    return {"rate": done / seconds, "pictures": done}


def _read(source: Path, stop: Any) -> None:
    """Read the files over and over, at the pace of `_READ_RATE`."""
    due = time.monotonic()
    while not stop.is_set():
        for path in sorted(source.glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(BATCH, columns=["jpeg"], use_threads=False):
                batch["jpeg"].to_pylist()
                due = max(due + batch.num_rows / _READ_RATE, time.monotonic())
                if stop.wait(due - time.monotonic()):
                    return


def _predict(network: str, device: str, stop: Any, ready: Any) -> None:
    """Run the model on batches from pinned memory, as fast as it goes."""
    import torch

    from benchmarks.gpu.contestants.model import Labels

    torch.set_num_threads(1)
    labels = Labels(network, device)
    pixels = torch.randint(0, 256, (BATCH, 224, 224, 3), dtype=torch.uint8)
    pixels = pixels if device == "cpu" else pixels.pin_memory()
    while not stop.is_set():
        labels.submit(pixels, None)
        if len(labels) > 1:
            labels.collect()
            ready.set()


def _on_device(options: argparse.Namespace, work: Callable[[], object], rows: int) -> dict[str, Any]:
    """Repeat `work`, which is `rows` rows, and wait for the device at the end."""
    import torch

    def wait() -> None:
        if options.device != "cpu":
            torch.cuda.synchronize()

    started = time.perf_counter()
    for _ in range(3):
        work()
    wait()
    first = time.perf_counter() - started
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < options.seconds:
        for _ in range(4):
            work()
            done += rows
        # Not further ahead than a few batches: what waits for the device takes memory there.
        wait()
    return {"rate": done / (time.perf_counter() - started), "warm_up_seconds": first}


def main() -> None:
    kinds = {each.__name__: each for each in (decode, beside, model, gpu_decode)}
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--compiled", type=int, default=0)
    parser.add_argument("--decoder", default="ours")
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    print(json.dumps(kinds[options.what](options)), flush=True)
    # Threads that still decode, or wait for what nobody reads any more, would be in the interpreter's way.
    os._exit(0)


if __name__ == "__main__":
    main()

"""Collect the example's input: the photographs that come with scikit-image, whole and in overlapping crops. Writes ``data/`` here."""

from __future__ import annotations

import argparse
import shutil
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
)
STEPS = (0.0, 0.25, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for data/")
    folder = parser.parse_args().out / "data"
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the images example needs its photographs: pip install 'antinfer[demo-images]'")
    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOGRAPHS:
        source = Path(spec.submodule_search_locations[0]) / "data" / name
        shutil.copyfile(source, folder / name)
        with Image.open(source) as photograph:
            crops(photograph.convert("RGB"), folder, Path(name).stem)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 this is no photograph")
    print(f"{len(list(folder.iterdir()))} files in {folder}, one of them broken")


def crops(photograph: Image.Image, folder: Path, stem: str) -> None:
    """Write nine crops, each half as wide and high as the photograph."""
    width, height = photograph.size
    for row, top in enumerate(STEPS):
        for column, left in enumerate(STEPS):
            box = (int(left * width), int(top * height), int((left + 0.5) * width), int((top + 0.5) * height))
            photograph.crop(box).save(folder / f"{stem}-{row}{column}.jpg", quality=90)


if __name__ == "__main__":
    main()

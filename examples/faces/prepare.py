"""Collect the example's input: photographs of people from a package, into ``data/`` here. None of them is part of this repository.

- ``debian``: 55 portraits of five people and 11 group photographs, from the examples of Debian's libdlib package (4 MB, fetched with
  apt-get, not installed).
- ``skimage``: scikit-image's portrait of an astronaut, whole, mirrored and from closer by, and three photographs that show nobody.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageOps

HERE = Path(__file__).parent
DEBIAN_PACKAGE = "libdlib19.1"
NOBODY = ("chelsea.png", "coffee.png", "rocket.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for data/")
    parser.add_argument("--source", choices=("auto", "debian", "skimage"), default="auto", help="auto: debian where there is apt-get")
    arguments = parser.parse_args()
    folder = arguments.out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    source = arguments.source
    if source == "auto":
        source = "debian" if shutil.which("apt-get") and shutil.which("dpkg-deb") else "skimage"
    {"debian": from_debian, "skimage": from_skimage}[source](folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 this is no photograph")
    print(f"{len(list(folder.iterdir()))} files in {folder}, one of them broken; source: {source}")


def from_debian(folder: Path) -> None:
    """Unpack the package's photographs; the name of a portrait begins with that of the person."""
    with tempfile.TemporaryDirectory() as name:
        unpacked = Path(name)
        for command in (["apt-get", "download", DEBIAN_PACKAGE], ["sh", "-c", f"dpkg-deb -x {DEBIAN_PACKAGE}_*.deb ."]):
            done = subprocess.run(command, cwd=unpacked, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SystemExit(f"{' '.join(command)} failed: {done.stderr.strip()}\nOr try --source skimage.")
        examples = unpacked / "usr/share/doc" / DEBIAN_PACKAGE / "examples"
        for portrait in examples.glob("johns/*/*.jpg"):
            shutil.copyfile(portrait, folder / f"{portrait.parent.name}-{portrait.name}")
        for group in examples.glob("faces/*.jpg"):
            shutil.copyfile(group, folder / f"group-{group.name}")


def from_skimage(folder: Path) -> None:
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the faces example needs photographs: pip install 'antinfer[demo-faces]'")
    photographs = Path(spec.submodule_search_locations[0]) / "data"
    for name in NOBODY:
        shutil.copyfile(photographs / name, folder / name)
    with Image.open(photographs / "astronaut.png") as astronaut:
        astronaut.save(folder / "astronaut.png")
        ImageOps.mirror(astronaut).save(folder / "astronaut-mirrored.png")
        astronaut.crop((120, 20, 340, 240)).resize((300, 300)).save(folder / "astronaut-closer.png")


if __name__ == "__main__":
    main()

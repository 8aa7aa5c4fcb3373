"""What every test gets: an environment without our variables, and a seed that is printed and can be given again."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("antinfer", deadline=None, print_blob=True)
settings.load_profile("antinfer")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="repeat a run with the seed that it printed")


def pytest_configure(config: pytest.Config) -> None:
    # Before collection, so that nothing read at import time sees them either.
    for name in [name for name in os.environ if name.startswith("ANTINFER_") and not name.startswith("ANTINFER_TEST_")]:
        del os.environ[name]
    # A shell that has put the run into its background had it ignore what Ctrl-C sends, and every process that a test starts would too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        config.option.seed = _seed_of_commit()


def _seed_of_commit() -> int:
    """Return the seed of the present commit: two runs of it try the same, those of the next one something else."""
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return zlib.crc32(told.stdout.encode()) >> 1 if told.returncode == 0 else secrets.randbelow(2**31)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed} (repeat with --seed={config.option.seed})"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number that depends on the run's seed and on this test alone, so that one test can be repeated by itself."""
    run_seed: int = request.config.option.seed
    number = zlib.crc32(f"{run_seed}:{request.node.nodeid}".encode())
    print(f"seed of this test: {number} (run with --seed={run_seed})")
    return number

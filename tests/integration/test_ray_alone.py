"""A Ray of the job's own: it listens beyond this machine, and serves nobody but us."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.commands import alive, descendants, environment, wait_until
from tests.integration.ray_driver import MODULE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'antinfer[ray]'"),
]

TASK = """
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(ray.get(ray.remote(lambda: "done here").remote()))
"""


def visit(address: str, **told: str) -> subprocess.CompletedProcess[str]:
    """Have a task run by the cluster at `address`, as somebody with these variables."""
    command = [sys.executable, "-c", TASK, address]
    # Ray would try for long.
    hasty = {"RAY_NUM_REDIS_GET_RETRIES": "1", "RAY_py_gcs_connect_timeout_s": "1", "RAY_gcs_rpc_server_connect_timeout_s": "1"}
    return subprocess.run(command, env={**environment(), **hasty, **told}, capture_output=True, text=True, timeout=60, check=False)


def test_it_runs_nothing_for_strangers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", MODULE, "--address", "local", "--parent", str(os.getpid())]
    command += [word for name in ("socket", "ready", "outcome") for word in (f"--{name}", str(tmp_path / name))]
    # What the user has set for other clusters has no say.
    surroundings = {**environment(), "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "a" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(command, env=surroundings, stdin=subprocess.PIPE, text=True) as driver:
        try:
            wait_until(lambda: (tmp_path / "ready").exists() or driver.poll() is not None, timeout=60, why="no Ray")
            address, token = json.loads((tmp_path / "ready").read_text())["address"], tmp_path / "ray-token"
            ours = descendants(driver.pid)
            assert len(ours) > 3 and token.stat().st_mode & 0o777 == 0o600
            for pid in ours & alive(ours):
                assert token.read_bytes() not in Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
            ending = visit(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
            assert "done here" in ending.stdout, ending
            for stranger in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32}):
                ending = visit(address, **stranger)
                assert ending.returncode != 0 and "done here" not in ending.stdout, ending
                assert "AuthenticationError" in ending.stderr, ending
        finally:
            driver.communicate("", timeout=30)
    wait_until(lambda: not alive(ours), timeout=20, why="something of Ray is left")

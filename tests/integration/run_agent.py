"""``python run_agent.py MASTER TOKEN NAME PATIENCE PID_FILE``: an agent as its users run it, but with the fake stage host."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from antinfer.core.ids import WorkerId
from antinfer.rpc.channel import parse_addresses
from antinfer.worker.agent import Agent, AgentOptions
from antinfer.worker.policy import SessionPolicy

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    options = AgentOptions(
        addresses=parse_addresses(sys.argv[1]),
        worker=WorkerId(sys.argv[3]),
        token=sys.argv[2],
        policy=SessionPolicy(grace_ms=5_000),
        host_command=(sys.executable, str(Path(__file__).with_name("fake_host.py"))),
        host_patience_s=float(sys.argv[4]),
        is_finished=lambda job: False,
        pid_file=Path(sys.argv[5]),
    )
    end = Agent(options).run()
    sys.stderr.write(f"end: {end.code} {end.reason}\n")
    sys.exit(end.code)

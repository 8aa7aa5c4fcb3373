"""The agent as a real process, against the real engine behind a real gRPC server, with a stage host that computes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from antinfer.core.engine import Phase
from antinfer.core.ids import WorkerId
from antinfer.core.messages import Heartbeat, Join, Request
from antinfer.core.scaling import exits
from antinfer.worker.agent import Agent, AgentOptions
from tests.integration.hosts import children

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from engine_server import EngineServer  # noqa: E402 - a neighbour, not a package


def wait_until(what: Callable[[], object], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Stand:
    """One server and the agents that were started for it."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.address = f"unix://{scratch}/m.sock"
        self.agents: list[subprocess.Popen[bytes]] = []
        self.server: EngineServer | None = None

    def serve(
        self, sizes: list[int], *, pause: float = 0.005, chunk: int = 5, token: str = "", sized: bool = True, teardown: float = 0
    ) -> EngineServer:
        document = json.dumps({"chunk": chunk, "pause": pause, "sizes": sizes, "teardown": teardown})
        self.server = EngineServer(self.address, sizes, document=document, token=token, sized=sized)
        self.server.start()
        return self.server

    def agent(self, *, address: str = "", token: str = "", patience: float = 2) -> subprocess.Popen[bytes]:
        name = f"w{len(self.agents)}"
        command = [sys.executable, str(HERE / "run_agent.py"), address or self.address, token, name, str(patience), str(self.pid_file)]
        log = (self.scratch / f"agent{len(self.agents)}.log").open("wb")
        with log:
            agent = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=log)
        self.agents.append(agent)
        return agent

    def log(self, agent: subprocess.Popen[bytes]) -> str:
        return (self.scratch / f"agent{self.agents.index(agent)}.log").read_text()

    @property
    def pid_file(self) -> Path:
        """Where an agent says which process it is."""
        return self.scratch / "worker.pid"

    def host_of(self, agent: subprocess.Popen[bytes]) -> int | None:
        return next(iter(children(agent.pid)), None)

    def close(self) -> None:
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
            agent.wait()
        if self.server is not None:
            self.server.stop()


@pytest.fixture
def stand() -> Iterator[Stand]:
    # Short: the path of a socket may have 107 bytes at most, and pytest's own directories are deep.
    with tempfile.TemporaryDirectory(prefix="ai-") as scratch:
        stand = Stand(Path(scratch))
        try:
            yield stand
        finally:
            stand.close()


def test_a_job_runs_to_its_end(stand: Stand) -> None:
    server = stand.serve([20, 0, 50, 7], sized=False)
    agent = stand.agent()
    assert agent.wait(30) == 0, stand.log(agent)
    assert "the job is done" in stand.log(agent)
    server.check_complete()
    wait_until(lambda: server.engine.phase is Phase.DONE)


def test_leases_outlive_a_killed_host(stand: Stand) -> None:
    server = stand.serve([300, 300])
    agent = stand.agent()
    wait_until(lambda: server.rows_committed() >= 50)
    host = stand.host_of(agent)
    assert host is not None
    os.kill(host, signal.SIGKILL)
    assert agent.wait(30) == 0, stand.log(agent)
    assert "killed by SIGKILL" in stand.log(agent)
    assert sum(isinstance(message, Join) for message in server.told) == 1
    assert {record.staged.split(".")[0] for record in server.committed.values()} == {"1-1", "1-2"}, "the leases changed"
    server.check_complete()


def test_sigterm_commits_what_is_finished_and_returns_the_rest(stand: Stand) -> None:
    server = stand.serve([2_000, 2_000], pause=0.01)
    agent = stand.agent()
    wait_until(lambda: server.rows_committed() >= 50)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == exits.TAKEN_AWAY, stand.log(agent)
    last = [message for message in server.told if isinstance(message, Request)][-1]
    assert last.leaving
    assert not server.engine.ledger.leases
    rows = server.rows_committed()
    assert 50 <= rows < 4_000
    server.document = json.dumps({"chunk": 500, "pause": 0.001, "sizes": server.sizes, "teardown": 0})
    other = stand.agent()
    assert other.wait(30) == 0, stand.log(other)
    server.check_complete()


@pytest.mark.parametrize("before", [[], [signal.SIGUSR1]], ids=["alone", "after SIGUSR1"])
def test_a_second_sigterm_stops_at_once_and_leaves_no_process(stand: Stand, before: list[signal.Signals]) -> None:
    server = stand.serve([1_000_000], pause=0.01)
    agent = stand.agent()
    wait_until(lambda: server.rows_committed() > 0)
    host = stand.host_of(agent)
    assert host is not None
    os.kill(host, signal.SIGSTOP)
    for number in [*before, signal.SIGTERM]:
        agent.send_signal(number)
        wait_until(lambda number=number: f"{number.name}: draining" in stand.log(agent))
    began = time.monotonic()
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == 130, stand.log(agent)
    assert time.monotonic() - began < 3
    wait_until(lambda: not Path(f"/proc/{host}").exists())


def test_what_comes_before_sigterm_is_not_the_first_of_two(stand: Stand) -> None:
    server = stand.serve([2_000, 2_000], pause=0.01)
    agent = stand.agent()
    wait_until(lambda: server.rows_committed() >= 50)
    host = stand.host_of(agent)
    assert host is not None
    os.kill(host, signal.SIGSTOP)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
        agent.send_signal(number)
        wait_until(lambda number=number: f"{number.name}: draining" in stand.log(agent))
    os.kill(host, signal.SIGCONT)
    assert agent.wait(10) == exits.TAKEN_AWAY, stand.log(agent)
    assert not server.engine.ledger.leases
    assert "drained after SIGUSR1" in stand.log(agent)


def test_an_agent_says_where_signals_reach_it_as_long_as_they_do(stand: Stand) -> None:
    server = stand.serve([2_000], pause=0.01)
    agent = stand.agent()
    wait_until(stand.pid_file.exists)
    # At once, while it is still looking for its master: the signal that it has no handler for would kill it.
    os.kill(int(stand.pid_file.read_text()), signal.SIGUSR1)
    assert agent.wait(10) == exits.TAKEN_AWAY, stand.log(agent)
    assert not stand.pid_file.exists()
    assert not server.engine.ledger.leases


def test_a_pid_file_that_cannot_be_written_does_not_keep_an_agent_from_its_work(stand: Stand) -> None:
    server = stand.serve([20])
    stand.pid_file.mkdir()
    agent = stand.agent()
    assert agent.wait(30) == 0, stand.log(agent)
    assert "cannot say in" in stand.log(agent) and "Is a directory" in stand.log(agent)
    server.check_complete()


def test_a_first_sigterm_does_not_cut_the_teardown_short_and_a_second_does(stand: Stand) -> None:
    server = stand.serve([2_000], pause=0.01, teardown=60)
    agent = stand.agent(patience=30)
    wait_until(lambda: server.rows_committed() >= 50)
    host = stand.host_of(agent)
    agent.send_signal(signal.SIGUSR1)
    wait_until(lambda: any(isinstance(message, Request) and message.leaving for message in server.told))
    wait_until(lambda: not stand.pid_file.exists())
    agent.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        agent.wait(0.5)
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(10) == exits.TAKEN_AWAY, stand.log(agent)
    wait_until(lambda: not Path(f"/proc/{host}").exists())


def test_work_goes_on_while_the_master_is_away(stand: Stand) -> None:
    server = stand.serve([400, 400])
    agent = stand.agent()
    wait_until(lambda: server.rows_committed() >= 50)
    server.stop()
    before = server.rows_committed()
    time.sleep(0.6)  # the host must get on meanwhile, and nobody is there to see it
    told = len(server.told)
    server.start()
    assert agent.wait(30) == 0, stand.log(agent)
    after = [message for message in server.told[told:] if isinstance(message, Join | Request | Heartbeat)]
    assert not any(isinstance(message, Join) for message in after), "the session was lost"
    buffered = max(len(message.commits) for message in after if isinstance(message, Request))
    assert buffered >= 10, f"{before} rows before; at most {buffered} commits were buffered"
    assert "found the master again" in stand.log(agent)
    server.check_complete()


def test_an_agent_waits_for_a_master_that_is_not_there_yet(stand: Stand) -> None:
    agent = stand.agent(address=f"127.0.0.1:9,{stand.address}")
    wait_until(lambda: "the master is away" in stand.log(agent))
    server = stand.serve([20])
    assert agent.wait(30) == 0, stand.log(agent)
    server.check_complete()


def test_a_worker_that_no_master_ever_answers_gives_up_in_time(stand: Stand) -> None:
    sleeper = (sys.executable, "-c", "import time; time.sleep(60)")
    options = AgentOptions((stand.address,), WorkerId("late"), host_command=sleeper, wait_s=0.8)
    before, began = children(os.getpid()), time.monotonic()
    end = Agent(options).run()
    assert 0.8 <= time.monotonic() - began < 10
    assert end.code == 1 and end.reason.startswith("no master has answered for 0.8 s, at last: no master answers at unix://")
    assert set(children(os.getpid())) <= set(before), "its host was left behind"


def test_a_wrong_token_ends_the_agent_with_a_clear_message(stand: Stand) -> None:
    server = stand.serve([20], token="right")
    agent = stand.agent(token="wrong")
    assert agent.wait(30) == 1
    assert "refuses our token" in stand.log(agent) and "Traceback" not in stand.log(agent)
    right = stand.agent(token="right")
    assert right.wait(30) == 0, stand.log(right)
    server.check_complete()


def test_two_workers_one_killed(stand: Stand) -> None:
    server = stand.serve([300, 300, 300, 300])
    first, second = stand.agent(), stand.agent()
    wait_until(lambda: server.rows_committed() >= 100)
    host = stand.host_of(first)
    first.kill()
    assert second.wait(60) == 0, stand.log(second)
    server.check_complete()
    wait_until(lambda: not Path(f"/proc/{host}").exists())


def test_stats_reach_the_master(stand: Stand) -> None:
    server = stand.serve([1_000_000], pause=0.01)
    stand.agent()
    wait_until(lambda: any(stats.rows_per_second > 0 for stats in server.stats))
    stats = server.stats[-1]
    assert stats.rows > 0 and [(stage.name, stage.busy) for stage in stats.stages] == [("fake", 1.0)]
    assert stats.rss_bytes > 20 << 20, "an agent and a host, both of them Python"

"""What runs on the nodes: an actor that keeps one worker.

The worker is the ordinary agent as a child process: nothing of Ray and nothing of the user's is in it, and the kernel kills it when the
actor's process dies, however that comes about.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from antinfer.core.scaling import exits
from antinfer.errors import AntinferError, UsageError
from antinfer.launchers.ray.settings import SERVER_NAME, RaySettings
from antinfer.storage import layout

_MOST_LINES: Final = 1_000
"""Lines that wait to be fetched; where there are more the oldest are dropped."""
_LAST_LINES: Final = 20
"""Lines that are repeated when the worker has ended."""


class WorkerActor:
    """Keeps one worker from its start to its end. `news` and `stop` may be called side by side."""

    def __init__(self, settings: str, name: str) -> None:
        """
        Args:
            settings: `RaySettings` as JSON.
            name: of the worker.
        """
        self._name = name
        self._news = threading.Condition()
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._is_unwanted = False
        self._has_told = False
        self._exit_code: int | None = None
        self._problem = ""
        # A thread of its own: the kernel kills the worker when the thread that started it ends, and those of Ray come and go.
        threading.Thread(target=self._keep, args=(settings,), name=name, daemon=True).start()

    def __repr__(self) -> str:
        return self._name

    def news(self) -> dict[str, Any]:
        """Return what is new; the first time at once, then when there is something.

        Keys: ``node``, the id of the node; ``lines``, what the worker has said; ``exit_code`` once it has ended, with its last words under
        ``words``; ``problem`` when it could not be started.
        """
        import ray

        with self._news:
            self._news.wait_for(lambda: not self._has_told or self._lines or self._is_over)
            self._has_told = True
            lines = list(self._lines)
            self._lines.clear()
            over = {"exit_code": self._exit_code, "problem": self._problem, "words": "\n".join(self._last)} if self._is_over else {}
            return {"node": ray.get_runtime_context().get_node_id(), "lines": lines, **over}

    def stop(self) -> None:
        """Tell the worker to leave: it commits what is finished, returns the rest, and ends."""
        with self._news:
            self._is_unwanted = True
            if self._process is not None and self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)

    # -- inside ------------------------------------------------------------------------------------------------------------------
    @property
    def _is_over(self) -> bool:
        return self._exit_code is not None or bool(self._problem)

    def _keep(self, document: str) -> None:
        try:
            code, problem = self._work(document), ""
        except AntinferError as error:
            code, problem = None, error.text
        except OSError as error:
            code, problem = None, f"the worker cannot be started: {error}"
        with self._news:
            self._exit_code, self._problem = code, problem
            self._news.notify_all()

    def _work(self, document: str) -> int:
        settings = RaySettings.from_json(document)
        _check_output(settings.output)
        kept = {"--token-file": settings.token, "--tls-ca": settings.ca, "--tls-cert": settings.cert, "--tls-key": settings.key}
        with code_folder(settings) as folder, _in_memory(kept) as secrets:
            command = [sys.executable, "-m", "antinfer.worker", "--master", settings.master, "--name", self._name, "--base-dir", folder]
            command += [part for option, descriptor in secrets.items() for part in (option, f"/proc/self/fd/{descriptor}")]
            command += ["--tls-name", SERVER_NAME, "--grace", str(settings.grace_s), "--parent", str(os.getpid())]
            command += ["--verbose"] if settings.verbose else []
            with self._news:
                if self._is_unwanted:
                    return exits.TAKEN_AWAY
                self._process = subprocess.Popen(
                    command,
                    pass_fds=tuple(secrets.values()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                )
            assert self._process.stdout is not None
            with self._process.stdout as lines:
                for line in lines:
                    self._say(line.rstrip("\n"))
            return exits.of_process(self._process.wait())

    def _say(self, line: str) -> None:
        # Into the files of Ray as well, where its own tools look.
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        with self._news:
            self._lines.append(line)
            self._last.append(line)
            self._news.notify_all()


def _check_output(uri: str) -> None:
    """Raise `UsageError` where a folder that is this machine's own would be written to, and the master would find nothing."""
    if "://" not in uri and not Path(uri, layout.JOB).exists():
        raise UsageError(
            f"the output place {uri} is not on node {os.uname().nodename}, or is another folder there",
            hint="All nodes and the machine of the master need the same storage: a shared file system, or an object store.",
        )


@contextmanager
def code_folder(settings: RaySettings) -> Iterator[str]:
    """Give the folder of the user code for the time of the block: where it lies already, as it is now, or else a copy of what was sent."""
    for folder in (settings.base_dir, str(Path.cwd())):
        if _holds(folder, settings.code):
            yield folder
            return
    with tempfile.TemporaryDirectory(prefix="antinfer-code-") as copy:
        for path, text in settings.code.items():
            file = Path(copy, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_bytes(text))
        yield copy


def _holds(folder: str, code: Mapping[str, str]) -> bool:
    for path, text in code.items():
        try:
            found = Path(folder, path).read_bytes()
        except OSError:
            return False
        if found != _bytes(text):
            return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@contextmanager
def _in_memory(texts: Mapping[str, str]) -> Iterator[dict[str, int]]:
    """Give, by the same names, descriptors of files that hold the texts, in memory only, for the time of the block."""
    with ExitStack() as opened:
        descriptors = {}
        for name, text in texts.items():
            descriptors[name] = os.memfd_create(name.strip("-"), 0)
            opened.callback(os.close, descriptors[name])
            os.write(descriptors[name], text.encode())
        yield descriptors

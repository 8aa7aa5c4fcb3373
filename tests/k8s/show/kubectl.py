"""The real `kubectl` beside a cluster of the double."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.k8s.show.transcript import Transcript

PROGRAM = shutil.which("kubectl")
_WHO = "kubectl"
_PATIENCE_S = 60


class Kubectl:
    """Somebody at a terminal of their own."""

    def __init__(self, kubeconfig: Path, transcript: Transcript) -> None:
        assert PROGRAM is not None, "kubectl is not on this machine"
        self._command = [PROGRAM, "--kubeconfig", str(kubeconfig), "--cache-dir", str(kubeconfig.parent / "cache")]
        self._transcript = transcript

    def say(self, *arguments: str) -> bool:
        """Run a command to its end and show what it prints. Returns whether it succeeded."""
        self._transcript.say("$", " ".join(("kubectl", *arguments)))
        done = subprocess.run(
            [*self._command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_PATIENCE_S, check=False
        )
        self._transcript.say(_WHO, done.stdout)
        return done.returncode == 0

    @contextmanager
    def following(self, *arguments: str) -> Iterator[None]:
        """Show what a command prints, line by line, for the time of the block."""
        self._transcript.say("$", " ".join(("kubectl", *arguments)))
        process = subprocess.Popen([*self._command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        reader = threading.Thread(target=self._show, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)
            reader.join(_PATIENCE_S)
            process.stdout.close()

    def _show(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._transcript.say(_WHO, line)

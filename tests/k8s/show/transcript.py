"""What is seen of the show: who said what, and when; and whether all was as it must be."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Transcript:
    """Lines as they come, from many threads."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    faults: list[str] = field(default_factory=list)
    """What was not as it must be."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = field(default_factory=time.monotonic)

    def say(self, who: str, text: str) -> None:
        """Print each line of `text` as said by `who`."""
        with self._lock:
            for line in text.splitlines():
                print(f"{time.monotonic() - self._begun:6.1f}  {who:<9}{line}".rstrip(), file=self.out, flush=True)

    def scene(self, title: str) -> None:
        """Print the headline of what comes next."""
        with self._lock:
            print(f"\n== {title}", file=self.out, flush=True)

    def expect(self, what: str, holds: object) -> None:
        """Say whether something is as it must be, and keep it when it is not."""
        if not holds:
            self.faults.append(what)
        self.say("must be", f"{what}: {'yes' if holds else 'NO'}")

    def close(self) -> int:
        """Print the verdict. Returns the exit status."""
        self.scene("not as it must be: " + "; ".join(self.faults) if self.faults else "all is as it must be")
        return 1 if self.faults else 0

"""What the pods of a job say, kept in files as they say it: with a pod its log goes too."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from antinfer.launchers.kubernetes.api import Api, ApiError

_TAIL: Final = 20


class PodLogs:
    """One file ``NAME.log`` for each pod, in one folder."""

    def __init__(self, api: Api, namespace: str, folder: Path) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self.folder = folder
        self._followed: dict[str, threading.Thread] = {}

    def follow(self, name: str, container: str) -> None:
        """Keep the log of a pod that has started, from its beginning to its end; once for each."""
        if name not in self._followed:
            thread = threading.Thread(target=self._follow, args=(name, container), name=f"log of {name}", daemon=True)
            self._followed[name] = thread
            thread.start()

    def finish(self, seconds: float) -> None:
        """Wait for the rest of what pods that are gone have said, but not for longer than that."""
        for thread in self._followed.values():
            thread.join(seconds / max(1, len(self._followed)))

    def tail(self, name: str) -> str:
        """Return the last lines of a pod."""
        path = self._file(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-_TAIL:]) if path.exists() else "it said nothing"

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _follow(self, name: str, container: str) -> None:
        with self._file(name).open("ab", buffering=0) as file:
            try:
                for data in self._api.text(f"{self._path}/{name}/log", container=container, follow="true"):
                    file.write(data)
            except ApiError as error:
                file.write(f"(the log ends here: {error})\n".encode())

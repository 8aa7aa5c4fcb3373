"""What a master on Kubernetes has to know to make its workers: a small JSON document, made by whoever starts the master."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from antinfer.errors import UsageError


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """How workers are made as pods."""

    image: str
    namespace: str = "default"
    master: str = ""
    """Where workers find the master; empty: where it listens."""
    secret: str = ""
    """Secret with the token and the certificates of the workers; empty: the master asks for none."""
    server_name: str = ""
    """Name in the certificate of the master."""
    grace_s: int = 30
    """Time between the signal to leave and the end."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the pod of every worker."""
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Laid over those of one class, after that."""
    most: int = 100
    """Most workers where the job does not say."""
    pod: str = ""
    """Name of the master's own pod, whose owner becomes that of the workers; empty: they have none."""
    kubeconfig: str = ""

    @classmethod
    def read(cls, path: Path) -> KubernetesSettings:
        """Read a document. Raises `UsageError` when it is none."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"cannot read the launcher's settings {path}: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            raise UsageError(f"the launcher's settings {path} are no good: {error}") from error

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

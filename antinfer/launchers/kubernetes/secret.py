"""The Secret of a job: what is in it, and which pod gets which part. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from antinfer.launchers.certificates import WHO, Certificates

DIR: Final = "/etc/antinfer/secret"
REDACTED: Final = "not shown: --show-secrets"
STORE_URL: Final = "store-url"
DOCUMENT: Final = "job.json"
_MODE: Final = 0o400
"""Of the files. The kubelet lets the group of the pod's `fsGroup` read them as well: who is not root could not read them otherwise."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What nobody but those concerned may know of a job."""

    certificates: Certificates
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """What workers show the master."""
    admin_token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    """What people show it."""
    store_url: str = field(default="", repr=False)
    document: str = field(default="", repr=False)
    """The job with the credentials of its storage; empty: it has none."""

    def data(self) -> dict[str, str]:
        """Return the content of the Secret."""
        found = {"token": self.token, "admin-token": self.admin_token, "ca.crt": self.certificates.ca.decode()}
        for who in WHO:
            identity = self.certificates.identities[who]
            found |= {f"{who}.crt": identity.cert.decode(), f"{who}.key": identity.key.decode()}
        return found | {key: value for key, value in ((STORE_URL, self.store_url), (DOCUMENT, self.document)) if value}


def volume(name: str, who: str, more: Sequence[str] = ()) -> dict[str, Any]:
    """Return the volume with what one of `WHO` gets of the Secret `name`, and the keys `more`."""
    keys = ("token", "ca.crt", f"{who}.crt", f"{who}.key", *more)
    items = [{"key": key, "path": key} for key in keys]
    return {"name": "secret", "secret": {"secretName": name, "items": items, "defaultMode": _MODE}}


def mount() -> dict[str, Any]:
    """Return where that volume is mounted."""
    return {"name": "secret", "mountPath": DIR, "readOnly": True}


def options(who: str) -> list[str]:
    """Return the options by which a master or a worker finds its part."""
    files = {"--token-file": "token", "--tls-ca": "ca.crt", "--tls-cert": f"{who}.crt", "--tls-key": f"{who}.key"}
    return [word for option, file in files.items() for word in (option, f"{DIR}/{file}")]


def redacted(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object as it may be shown: of a Secret the keys alone."""
    if obj["kind"] != "Secret":
        return obj
    return {**obj, "stringData": dict.fromkeys(obj["stringData"], REDACTED)}

"""What may be told to an address in plain text, and who may be listened to there: beyond this machine nothing and nobody, unless told."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from antinfer.errors import UsageError

if TYPE_CHECKING:
    from antinfer.rpc.channel import Tls


def check_listening(listen: str, *, tls: Tls | None, token: str) -> None:
    """Look whether `listen` may be listened on. Raises `UsageError` for an address of the network without mutual TLS and a token."""
    given = {
        "TLS": tls is not None,
        # Else whoever has the token may call, and the certificates prove one side alone.
        "an authority for the certificates of its callers": tls is None or tls.ca is not None,
        "a token": bool(token),
    }
    if _is_local(listen) or all(given.values()):
        return
    missing = " and ".join(name for name, is_given in given.items() if not is_given)
    raise UsageError(
        f"{listen} can be reached from other machines, and the master would listen there without {missing}",
        hint="Give --tls-ca, --tls-cert, --tls-key and --token-file; on a network where everybody may read and end the job: --insecure.",
    )


def check_telling(address: str, *, tls: Tls | None, token: str) -> None:
    """Look whether `address` may be told `token`. Raises `UsageError` for one of the network without TLS: anybody between could read it."""
    if not token or tls is not None or _is_local(address):
        return
    raise UsageError(
        f"{address} is another machine, and the token would travel there in plain text",
        hint="Give --tls-ca, --tls-cert and --tls-key; on a network where everybody may have the token: --insecure.",
    )


def _is_local(address: str) -> bool:
    """Tell whether only processes of this machine reach what listens on `address`."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Who can reach a master: nobody beyond this machine without a secret, and none of it in plain text, unless somebody says so."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from antinfer.errors import UsageError

if TYPE_CHECKING:
    from antinfer.rpc.channel import Tls


def check_exposure(listen: str, *, tls: Tls | None, token: str) -> None:
    """Look whether `listen` may be listened on. Raises `UsageError` for an address of the network without TLS and a token."""
    if _is_local(listen) or (tls is not None and token):
        return
    missing = " and ".join(name for name, given in (("TLS", tls is not None), ("a token", bool(token))) if not given)
    raise UsageError(
        f"{listen} can be reached from other machines, and the master would listen there without {missing}",
        hint="Give --tls-ca, --tls-cert, --tls-key and --token-file; on a network where everybody may read and end the job: --insecure.",
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

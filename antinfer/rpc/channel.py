"""Channels to a master: addresses, transport security, the shared token, keepalive."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import grpc

from antinfer.errors import UsageError
from antinfer.rpc.validity import check_validity

TOKEN_KEY: Final = "authorization"
_SCHEME = "Bearer "

MAX_MESSAGE_BYTES: Final = 64 << 20
"""A request with many buffered commits and their accumulators, or a job document with a long schema, stays far below."""

_Options = tuple[tuple[str, int | str], ...]

CLIENT_OPTIONS: Final[_Options] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A peer whose machine vanished sends no FIN: without pings the stream would look alive for the kernel's two hours.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The ping's own limit, a minute unless given, is what counts while we keep sending into the kernel's buffers.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Requests are numbered and repeated by the session alone, and it alone backs off.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # Whoever looks at a master that is started again and again must see it in between; the default grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Masters are near; a proxy variable meant for the user's downloads must not divert us.
    ("grpc.enable_http_proxy", 0),
)

SERVER_OPTIONS: Final[_Options] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Below the clients' interval: else the server takes their pings for an attack and hangs up.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # A second server on the same port must be an error, not a coin toss between two masters.
    ("grpc.so_reuseport", 0),
)


Pem = Path | bytes
"""A file, or what would stand in it."""


@dataclass(frozen=True, slots=True)
class Tls:
    """What an encrypted channel is made with (PEM)."""

    ca: Pem | None = None
    """Trusted roots; None: those of the system, and for a server: clients need no certificate."""
    cert: Pem | None = None
    """Our own certificate, for mutual TLS; needs `key`."""
    key: Pem | None = field(default=None, repr=False)
    server_name: str = ""
    """Name to expect in the master's certificate when it is not the address."""


def tls_of(ca: Path | None, cert: Path | None, key: Path | None, server_name: str = "") -> Tls | None:
    """Return what the options of a command line ask for; None: plain text."""
    return None if ca is None and cert is None and key is None else Tls(ca, cert, key, server_name)


def parse_addresses(text: str) -> tuple[str, ...]:
    """Split ``"HOST:PORT[,HOST:PORT...]"`` or ``"unix:///path"``. Raises UsageError on anything else."""
    addresses = tuple(part.strip() for part in text.split(",") if part.strip())
    if not addresses:
        raise UsageError("no master address given", hint="give HOST:PORT or unix:///PATH, several separated by commas")
    for address in addresses:
        _check_address(address)
    return addresses


def _check_address(address: str) -> None:
    if address.startswith("unix:"):
        return
    hint = "give HOST:PORT or unix:///PATH"
    try:
        parts = urlsplit(f"//{address}")
        valid = bool(parts.hostname) and parts.port is not None and parts.netloc == address
    except ValueError as error:
        raise UsageError(f"not a master address: {address!r} ({error})", hint=hint) from error
    if not valid:
        raise UsageError(f"not a master address: {address!r}", hint=hint)


def read_token(path: Path, what: str = "token") -> str:
    """Return the token, or another secret that is one line, in `path`.

    Raises:
        UsageError: The file cannot be read, is empty, or cannot travel in a header.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UsageError(f"cannot read the {what} file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the {what} file {path} holds something that is not ASCII text") from error
    if not token or not token.isprintable():
        raise UsageError(f"the {what} file {path} does not hold one line of text", hint=f"write the master's {what} into it")
    return token


def token_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Return the call metadata that proves who we are; empty without a token."""
    return ((TOKEN_KEY, _SCHEME + token),) if token else ()


def token_matches(metadata: Iterable[tuple[str, str | bytes]], token: str) -> bool:
    """Tell whether a call's metadata carries `token`; takes the same time for every wrong one. Without a token everybody may call."""
    if not token:
        return True
    given = next((value for key, value in metadata if key == TOKEN_KEY), "")
    data = given.encode() if isinstance(given, str) else given
    return hmac.compare_digest(data, (_SCHEME + token).encode())


def open_channel(address: str, *, tls: Tls | None = None) -> grpc.Channel:
    """Return a channel to `address`; connecting begins with the first call.

    Raises:
        UsageError: A TLS file cannot be read, or a certificate has expired.
        MachineError: A certificate is not valid yet.
    """
    if tls is None:
        return grpc.insecure_channel(address, options=CLIENT_OPTIONS)
    if (tls.cert is None) != (tls.key is None):
        raise UsageError("a client certificate and its key go together", hint="give both or none")
    ca, cert, key = _checked(tls)
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    named: _Options = (("grpc.ssl_target_name_override", tls.server_name),) if tls.server_name else ()
    return grpc.secure_channel(address, credentials, options=CLIENT_OPTIONS + named)


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return credentials to serve with; with a `ca`, only clients with a certificate from it may call.

    Raises:
        UsageError: A file is missing or cannot be read, a certificate has expired, or the key is that of another one.
        MachineError: A certificate is not valid yet.
    """
    ca, cert, key = _checked(tls)
    if cert is None or key is None:
        raise UsageError("serving with TLS needs a certificate and its key")
    return grpc.ssl_server_credentials([(key, cert)], ca, ca is not None)


def _checked(tls: Tls) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return roots, certificate and key, all fit for use now."""
    now = datetime.now(UTC)
    ca, cert = _read_pem(tls.ca), _read_pem(tls.cert)
    for pem, source, name in ((ca, tls.ca, "the certificate of the authority"), (cert, tls.cert, "our certificate")):
        if pem is not None:
            check_validity(pem, f"{name} in {source}" if isinstance(source, Path) else name, now)
    if isinstance(tls.cert, Path) and isinstance(tls.key, Path):
        _check_pair(tls.cert, tls.key)
    return ca, cert, _read_pem(tls.key)


def _check_pair(cert: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        raise UsageError(f"{key} is not the key of the certificate in {cert}, or is encrypted ({error.reason})") from error
    except OSError as error:
        raise _unreadable(key, error) from error


def _read_pem(source: Pem | None) -> bytes | None:
    if source is None or isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot read the TLS file {path}: {error.strerror}")

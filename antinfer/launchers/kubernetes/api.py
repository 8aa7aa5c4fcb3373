"""Requests to an API server in plain JSON values. The official client finds the server and proves who we are; its models are not used."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode

from antinfer.errors import InfraError, UsageError
from antinfer.launchers.kubernetes.rights import explain

_TRIES: Final = 5
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_CONNECT_S: Final = 10.0
_READ_S: Final = 60.0
_SILENCE_S: Final = 100.0
"""A watch without a word for so long is a connection that is gone: a server sends a bookmark about once a minute."""
_PASSING: Final = frozenset((429, 500, 502, 503, 504))
_CONNECTIONS: Final = 24


class ApiError(InfraError):
    """An API server refused, or could not be reached."""

    def __init__(self, status: int, message: str, *, reason: str = "", retry_after_s: float | None = None, hint: str = "") -> None:
        """
        Args:
            status: code of the answer; 0: there was none.
            message: the server's words.
            reason: the server's word for programs, such as ``AlreadyExists``.
            retry_after_s: how long the server wants to be left alone.
            hint: what can be done.
        """
        super().__init__(explain(status, message), hint=hint)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s

    @property
    def may_pass(self) -> bool:
        """True when the same request may succeed later."""
        return self.status == 0 or self.status in _PASSING


def pause_s(failures: int, retry_after_s: float | None = None) -> float:
    """Return how long to wait after so many failures in a row, by chance: thousands of clients must not come back in the same moment."""
    limit = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures, 10))
    drawn = random.uniform(limit / 2, limit)
    return drawn if retry_after_s is None else retry_after_s + random.uniform(0.0, 1.0) * min(1.0, retry_after_s)


class Api:
    """One API server. May be used by many threads."""

    def __init__(self, configuration: Any, *, tries: int = _TRIES, is_inside: bool = False) -> None:
        """
        Args:
            configuration: of the official client.
            tries: how often a request is made that may succeed later.
            is_inside: we are a pod of that cluster, and reach addresses in it.
        """
        from kubernetes.client import ApiClient

        # Tries again are ours: the transport's own know neither which requests may be repeated nor that we are being closed.
        configuration.retries = False
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._tries = tries
        self.is_inside = is_inside
        self._closed = threading.Event()

    @classmethod
    def connect(cls, kubeconfig: str = "", context: str = "", *, tries: int = _TRIES) -> Api:
        """Find the server: by `kubeconfig`, by the variable KUBECONFIG or the usual file, or from inside a pod. Speaks to nobody yet.

        Args:
            kubeconfig: path; empty: the usual.
            context: name in it; empty: the current one.
            tries: how often a request is made that may succeed later.

        Raises:
            UsageError: There is none, or the client is not installed.
        """
        try:
            from kubernetes import client, config
            from kubernetes.config.config_exception import ConfigException
        except ImportError as error:
            raise UsageError("the Kubernetes client is not installed", hint="pip install 'antinfer[kubernetes]'") from error
        configuration = client.Configuration()
        loaders: Any = config  # without types in some versions
        path = kubeconfig or os.environ.get("KUBECONFIG", "")
        is_inside = not path and not context and "KUBERNETES_SERVICE_HOST" in os.environ
        try:
            if is_inside:
                loaders.load_incluster_config(client_configuration=configuration)
            else:
                loaders.load_kube_config(
                    config_file=path or None, context=context or None, client_configuration=configuration, persist_config=False
                )
        except ConfigException as error:
            raise UsageError(
                f"no Kubernetes cluster is known here: {error}", hint="Set KUBECONFIG, or give --kubeconfig and --context."
            ) from error
        return cls(configuration, tries=tries, is_inside=is_inside)

    @property
    def configuration(self) -> Any:
        """That of the official client."""
        return self._configuration

    def close(self) -> None:
        """End pauses and watches under way."""
        self._closed.set()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def wait(self, seconds: float) -> None:
        """Wait, or until `close`."""
        self._closed.wait(seconds)

    def ask(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
        """Send a request and return the object that is answered, its time (ms since 1970, by the server's clock) under ``date``.

        What may pass is tried again some times, when the server says or after growing pauses.

        Raises:
            ApiError: The server refused, or cannot be reached.
        """
        failures = 0
        while True:
            try:
                with self._open(method, path, body, query, _READ_S) as response:
                    answer: dict[str, Any] = self._decode(response.status, response.data)
                    answer["date"] = _date_of(response.headers)
                    return answer
            except ApiError as error:
                failures += 1
                if not error.may_pass or failures >= self._tries or self.is_closed:
                    raise
                self.wait(pause_s(failures, error.retry_after_s))

    def watch(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield the events of a watch until the server ends it.

        Raises:
            ApiError: It was refused or broke; with status 410 where it cannot begin at that version.
        """
        with self._open("GET", path, None, {"watch": "true", **query}, _SILENCE_S) as response:
            for line in self._lines(response):
                event: dict[str, Any] = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error_of(int(event["object"].get("code") or 0), event["object"], None)
                yield event

    def text(self, path: str, **query: Any) -> Iterator[bytes]:
        """Yield what is answered in plain text, as it comes; a log that is followed may be silent for as long as it likes.

        Raises:
            ApiError: It was refused or broke.
        """
        from urllib3.exceptions import HTTPError

        with self._open("GET", path, None, query, None) as response:
            try:
                yield from response.stream(amt=None, decode_content=False)
            except (HTTPError, OSError) as error:
                raise ApiError(0, f"the answer of the API server broke off: {error}") from error

    def _lines(self, response: Any) -> Iterator[bytes]:
        from urllib3.exceptions import HTTPError

        rest = b""
        try:
            for chunk in response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, lines)
                if self.is_closed:
                    return
        except (HTTPError, OSError) as error:
            raise ApiError(0, f"the watch broke: {error}") from error

    @contextmanager
    def _open(self, method: str, path: str, body: Any, query: Mapping[str, Any], read_s: float | None) -> Iterator[Any]:
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json, */*", "User-Agent": "antinfer"}
        proof = self._configuration.auth_settings().get("BearerToken")
        if proof is not None and proof["value"]:
            headers[proof["key"]] = proof["value"]
        text = None
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
            text = json.dumps(body)
        try:
            response = self._client.rest_client.pool_manager.request(
                method, url, body=text, headers=headers, preload_content=False, timeout=Timeout(connect=_CONNECT_S, read=read_s)
            )
        except (HTTPError, OSError) as error:
            raise self.unreachable(getattr(error, "reason", None) or error) from error
        whole = False
        try:
            if response.status >= 400:
                raise _error_of(response.status, self._decode(response.status, response.data), response.headers.get("Retry-After"))
            yield response
            whole = True
        except (HTTPError, OSError) as error:
            raise ApiError(0, f"the answer of the API server broke off: {error}") from error
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()

    def unreachable(self, why: object) -> ApiError:
        """Return the error that nobody answers."""
        hint = "Is the cluster up, and the one that is meant? --kubeconfig and --context name another."
        return ApiError(0, f"the API server at {self._configuration.host} cannot be reached: {why}", hint=hint)

    @staticmethod
    def _decode(status: int, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ApiError(status, data[:500].decode("utf-8", "replace") or f"the API server answered {status} and said nothing")
        return found


def _error_of(status: int, told: Mapping[str, Any], retry_after: str | None) -> ApiError:
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    message = str(told.get("message") or f"the API server answered {status}")
    return ApiError(status, message, reason=str(told.get("reason") or ""), retry_after_s=seconds)


def _date_of(headers: Mapping[str, str]) -> int | None:
    date = headers.get("Date")
    return None if date is None else round(parsedate_to_datetime(date).timestamp() * 1_000)

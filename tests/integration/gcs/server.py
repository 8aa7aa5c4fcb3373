"""A double of Cloud Storage, written from the documentation of its JSON API, in a process of its own.

Arrow's client waits for answers with Python's lock in hand, so that a service in the same process could never give them.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.managers import BaseManager

from tests.integration.gcs.listener import Double
from tests.integration.gcs.state import Store
from tests.integration.gcs.trouble import RequestLog, Trouble


class _Process(BaseManager):
    """The process of a double; what its objects return comes as a copy, but for rules, of which the caller gets hold."""


_Process.register("Double", Double, method_to_typeid={"store": "Store", "trouble": "Trouble", "log": "RequestLog"})
_Process.register(
    "Store", exposed=("create_bucket", "delete_bucket", "insert", "get", "delete", "patch", "copy", "move", "objects", "names")
)
_Process.register(
    "Trouble",
    method_to_typeid=dict.fromkeys(("fail", "lose_reply", "hold", "refuse_writes"), "Rule"),
    exposed=("fail", "lose_reply", "hold", "refuse_writes", "clear"),
)
_Process.register("RequestLog", exposed=("matching", "clear"))
_Process.register("Rule", exposed=("hits", "await_arrival", "release"))


@dataclass(frozen=True)
class GcsServer:
    """A running double: `store` is what it keeps, `trouble` what it does to requests, `log` the requests that came."""

    url: str
    store: Store
    trouble: Trouble
    log: RequestLog


@contextlib.contextmanager
def gcs_server(*buckets: str, page_size: int = 1000, token: str | None = None) -> Iterator[GcsServer]:
    """Run a double that has `buckets` for the time of the block.

    Args:
        buckets: Names of buckets that are there from the start.
        page_size: Most entries in one page of a listing, as a small one lets clients see several.
        token: What clients have to bear; without one any client is let in.
    """
    with _Process(ctx=multiprocessing.get_context("spawn")) as process:
        double = process.Double(page_size, token)  # type: ignore[attr-defined]
        server = GcsServer(double.url(), double.store(), double.trouble(), double.log())
        for bucket in buckets:
            server.store.create_bucket(bucket)
        yield server

"""Addresses and tokens, and how errors look at the other end of a real connection."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from antinfer import errors
from antinfer.rpc import convert
from antinfer.rpc.channel import (
    SERVER_OPTIONS,
    Tls,
    open_channel,
    parse_addresses,
    read_token,
    server_credentials,
    token_matches,
    token_metadata,
)
from antinfer.rpc.client import AdminClient, WorkClient
from antinfer.rpc.status import refuses_us, to_status
from antinfer.rpc.v1 import work_pb2_grpc
from antinfer.rpc.values import JobDocument

JOB = JobDocument("j", "{}", "file:///o")


class Service(work_pb2_grpc.WorkServicer):
    """Answers with the job, or with an error."""

    def __init__(self, error: errors.AntinferError | None, token: str) -> None:
        self._error = error
        self._token = token

    def GetJob(self, request: object, context: grpc.ServicerContext) -> object:
        if not token_matches(context.invocation_metadata(), self._token):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")
        if self._error is not None:
            code, details, trailer = to_status(self._error)
            context.set_trailing_metadata(trailer)
            context.abort(code, details)
        return convert.job_document_to_pb(JOB)


Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[grpc.Server] = []

    def start(error: errors.AntinferError | None = None, token: str = "", tls: Tls | None = None) -> str:
        server = grpc.server(ThreadPoolExecutor(2), options=SERVER_OPTIONS)
        work_pb2_grpc.add_WorkServicer_to_server(Service(error, token), server)
        port = server.add_secure_port("127.0.0.1:0", server_credentials(tls)) if tls else server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("h:1", ("h:1",)),
        ("h:1, [::1]:2,unix:///tmp/m.sock", ("h:1", "[::1]:2", "unix:///tmp/m.sock")),
    ],
)
def test_addresses(text: str, addresses: tuple[str, ...]) -> None:
    assert parse_addresses(text) == addresses


@pytest.mark.parametrize("text", ["", " , ", "host", "host:", ":1", "h:99999", "http://h:1", "h:1/x", "h:x"])
def test_what_is_not_an_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(errors.UsageError, match="address"):
        parse_addresses(text)


def test_a_token_file_is_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(errors.UsageError, match="No such file"):
        read_token(file)
    for bad in (b"", b"  \n", b"a\nb", "ü".encode()):
        file.write_bytes(bad)
        with pytest.raises(errors.UsageError, match="token"):
            read_token(file)
    file.write_text("secret\n")
    assert read_token(file) == "secret"


def test_tokens_match_exactly() -> None:
    assert token_matches((), "")
    assert token_matches(token_metadata("a"), "a")
    assert not token_matches(token_metadata("a"), "b")
    assert not token_matches((), "b")
    assert not token_matches((("authorization", "b"),), "b")


def test_the_job_is_served(serve: Serve) -> None:
    with WorkClient(serve(token="t"), token="t") as client:
        assert client.get_job() == JOB


@pytest.mark.parametrize("kind", [errors.MasterError, errors.ChangedError, errors.JobFileError, errors.FencedError, errors.InternalError])
def test_an_error_arrives_as_the_class_that_was_raised(serve: Serve, kind: type[errors.AntinferError]) -> None:
    address = serve(kind("it is so", hint="dö this"))
    with WorkClient(address) as client, pytest.raises(kind, match="it is so") as caught:
        client.get_job()
    assert type(caught.value) is kind and caught.value.hint == "dö this"
    assert not refuses_us(caught.value)


def test_a_refused_token_is_told_from_an_absent_master(serve: Serve) -> None:
    address = serve(token="right")
    with WorkClient(address, token="wrong") as client, pytest.raises(errors.MasterError, match="refuses our token") as refused:
        client.get_job()
    assert refuses_us(refused.value)
    with AdminClient("127.0.0.1:9") as absent, pytest.raises(errors.MasterError, match="no master answers") as away:
        absent.status()
    assert not refuses_us(away.value)


def test_another_service_at_the_address_is_named_as_such(serve: Serve) -> None:
    with AdminClient(serve()) as client, pytest.raises(errors.MasterError, match="not a master of this version"):
        client.status()


def test_tls_with_client_certificates(serve: Serve, tmp_path: Path) -> None:
    key, cert = tmp_path / "k.pem", tmp_path / "c.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=master"],
        check=True,
        capture_output=True,
    )
    address = serve(tls=Tls(ca_file=cert, cert_file=cert, key_file=key))
    with WorkClient(address, tls=Tls(cert, cert, key, server_name="master")) as client:
        assert client.get_job() == JOB
    for tls in (None, Tls(cert, server_name="master"), Tls(cert, cert, key)):
        with WorkClient(address, tls=tls) as client, pytest.raises(errors.MasterError):
            client.get_job()


def test_tls_files_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="go together"):
        open_channel("h:1", tls=Tls(cert_file=tmp_path / "c"))
    with pytest.raises(errors.UsageError, match="cannot read the TLS file"):
        open_channel("h:1", tls=Tls(ca_file=tmp_path / "missing"))


def test_a_second_server_on_one_port_is_an_error(serve: Serve) -> None:
    address = serve()
    server = grpc.server(ThreadPoolExecutor(1), options=SERVER_OPTIONS)
    with pytest.raises(RuntimeError, match="bind"):
        server.add_insecure_port(address)


def test_an_agent_imports_nothing_heavy() -> None:
    heavy = ("pyarrow", "numpy", "pydantic", "torch", "pandas", "yaml", "redis")
    code = f"import antinfer.worker.app, sys; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert found.stdout.strip() == "[]"

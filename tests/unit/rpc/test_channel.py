"""Addresses and tokens, and how errors look at the other end of a real connection."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from antinfer import errors
from antinfer.launchers.certificates import Certificates, make_certificates
from antinfer.rpc import convert
from antinfer.rpc.channel import (
    MAX_MESSAGE_BYTES,
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
from antinfer.rpc.status import from_status, refuses_us, to_status
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


def tls_of(made: Certificates, who: str) -> Tls:
    identity = made.identities[who]
    return Tls(made.ca, identity.cert, identity.key, made.server_name)


def raw_server(tls: Tls) -> tuple[grpc.Server, str]:
    """A server that does not look at its certificate."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(tls.key, tls.cert)], tls.ca, True))
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("shift", "name", "told", "hint"),
    [
        (timedelta(days=-400), "m.ns", "its certificate has expired", "Make a new one"),
        (timedelta(days=2), "m.ns", "its certificate is not valid yet", "Compare the clocks of both machines; here it is 20"),
        (timedelta(), "other.ns", "its certificate is for another name", "--tls-name"),
        (None, "m.ns", "its certificate is not one of the authority that we trust", "--tls-ca"),
    ],
    ids=["expired", "early", "name", "authority"],
)
def test_what_is_wrong_with_the_certificate_of_a_master_is_said(shift: timedelta | None, name: str, told: str, hint: str) -> None:
    now = datetime.now(UTC)
    served = make_certificates([name], now + (shift or timedelta()))
    ours = make_certificates(["m.ns"], now)
    worker = ours.identities["worker"]
    credentials = grpc.ssl_channel_credentials((ours if shift is None else served).ca, worker.key, worker.cert)
    server, address = raw_server(tls_of(served, "master"))
    try:
        channel = grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", "m.ns")])
        with channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/any/Method")(b"", timeout=10)
        error = from_status(caught.value, address)
    finally:
        server.stop(0).wait()
    assert isinstance(error, errors.MasterError)
    assert told in str(error) and hint in error.hint


def test_only_a_certificate_for_callers_lets_one_call(serve: Serve) -> None:
    made = make_certificates(["m.ns"])
    address = serve(tls=tls_of(made, "master"))
    for who in ("worker", "admin"):
        with WorkClient(address, tls=tls_of(made, who)) as client:
            assert client.get_job() == JOB
    nobody = Tls(made.ca, server_name=made.server_name)
    stranger = replace(tls_of(make_certificates(["m.ns"]), "worker"), ca=made.ca)
    for tls in (None, nobody, stranger, tls_of(made, "master")):
        with WorkClient(address, tls=tls) as client, pytest.raises(errors.MasterError, match="no master answers") as caught:
            client.get_job()
        assert "certificate of its authority" in caught.value.hint
    worker = made.identities["worker"]
    server, pretended = raw_server(Tls(made.ca, worker.cert, worker.key))
    try:
        with (
            WorkClient(pretended, tls=tls_of(made, "worker")) as client,
            pytest.raises(errors.MasterError, match="authority that we trust"),
        ):
            client.get_job()
    finally:
        server.stop(0).wait()


def test_a_message_that_is_too_large_is_called_that(serve: Serve) -> None:
    with WorkClient(serve()) as client, pytest.raises(errors.MasterError, match="too large"):
        client.get_job("j" * (MAX_MESSAGE_BYTES + 1))


def test_certificates_that_are_no_good_are_met_before_the_first_call(tmp_path: Path) -> None:
    made = make_certificates(["m.ns"], datetime.now(UTC) - timedelta(days=400))
    for call in (lambda tls: open_channel("h:1", tls=tls), server_credentials):
        with pytest.raises(errors.UsageError, match="the certificate of the authority has expired"):
            call(tls_of(made, "master"))
        with pytest.raises(errors.UsageError, match="our certificate has expired"):
            call(replace(tls_of(made, "master"), ca=make_certificates(["m.ns"]).ca))
    skewed = make_certificates(["m.ns"], datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(errors.MachineError, match=r"not valid before .* and the clock of this machine says"):
        open_channel("h:1", tls=tls_of(skewed, "worker"))
    one, other = make_certificates(["m.ns"]), make_certificates(["m.ns"])
    (tmp_path / "c").write_bytes(one.identities["master"].cert)
    (tmp_path / "k").write_bytes(other.identities["master"].key)
    with pytest.raises(errors.UsageError, match="is not the key of the certificate in"):
        server_credentials(Tls(None, tmp_path / "c", tmp_path / "k"))


def test_tls_files_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="go together"):
        open_channel("h:1", tls=Tls(cert=tmp_path / "c"))
    with pytest.raises(errors.UsageError, match="cannot read the TLS file"):
        open_channel("h:1", tls=Tls(ca=tmp_path / "missing"))
    with pytest.raises(errors.UsageError, match="needs a certificate and its key"):
        server_credentials(Tls())


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

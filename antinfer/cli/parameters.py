"""Arguments and options that several commands of ``antinfer`` have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="Job file, or the folder that holds a job.yaml.")]
OutputUri = Annotated[str, typer.Argument(metavar="OUTPUT", help="Output place: folder or URI.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the job file, as in pipeline.0.batch_size=64; repeatable."),
]
OutputOption = Annotated[str | None, typer.Option("--output", "-o", metavar="URI", help="Write there instead of the job file's sink.path.")]
Workers = Annotated[int | None, typer.Option("--workers", "-w", min=1, metavar="N", help="Worker processes on this machine.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only about the first N rows of the input.")]
StoreUrl = Annotated[
    str, typer.Option("--store", metavar="URL", envvar="ANTINFER_STORE", help="Redis or Valkey to use instead of an embedded server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for scripts.")]
Force = Annotated[bool, typer.Option("--force", help="Resume although the job file or the code changed; accept very many parts.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more: leases, drains, restarts.")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", metavar="FILE", help="File with the token shared by master and workers.")]
TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="Authority (PEM) whose certificates the other side must show: speak TLS.")
]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Own certificate (PEM).")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key (PEM).")]
TlsName = Annotated[
    str, typer.Option("--tls-name", metavar="NAME", help="Name in the certificate of the master; default: that in its address.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Let the token travel to another machine in plain text.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Of a job on Kubernetes; default: `default`.")]
Context = Annotated[str, typer.Option("--context", metavar="NAME", help="Context of the kubeconfig; default: the current one.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, the usual file, or that of the pod.")]
JobPlace = Annotated[
    str, typer.Argument(metavar="WHERE", help="Name of a job on Kubernetes, output place of a running job, or its master's HOST:PORT.")
]
PodsFile = Annotated[
    Path | None,
    typer.Option(
        "--pods", metavar="FILE", help="YAML laid over the pods of `master`, `worker`, `protected`, `preemptible` (metadata, spec)."
    ),
]
Grace = Annotated[int, typer.Option("--grace", min=6, metavar="SECONDS", help="Time that a worker has to leave.")]
Egress = Annotated[
    list[int] | None,
    typer.Option(
        "--egress", min=1, max=65_535, metavar="PORT", help="Port that the master connects to and the job file does not tell; repeatable."
    ),
]
Certificates = Annotated[
    Path | None,
    typer.Option(
        "--certificates", metavar="FOLDER", help="ca.crt, and .crt and .key of master, worker and admin; default: new ones are made."
    ),
]
MasterWait = Annotated[
    bool,
    typer.Option("--wait/--no-wait", help="On Kubernetes: wait up to a minute for the master to run, and say what hinders it."),
]
RunLauncher = Annotated[
    Literal["local", "ray"], typer.Option("--launcher", help="Where workers run: on this machine, or as actors of a Ray cluster.")
]
RayAddress = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster, or `auto`: one on this machine, or `local`: a new one. Default: as `auto` where there is one, else `local`.",
    ),
]
RayListen = Annotated[
    str,
    typer.Option("--listen", metavar="HOST:PORT", help="Where the nodes of the Ray cluster reach this machine. Default: as Ray does."),
]
RayActors = Annotated[
    Path | None,
    typer.Option(
        "--actors",
        metavar="FILE",
        help="YAML laid over what is asked of Ray for `worker`, `protected`, `preemptible` (num_cpus, resources, ...).",
    ),
]

"""The commands of ``antinfer``, as they are parsed. Heavy imports wait until a command needs them, so that help and errors come at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from antinfer.cli import render
from antinfer.cli.givenup import quarantine
from antinfer.cli.parameters import (
    AsJson,
    Certificates,
    Context,
    Egress,
    Force,
    Grace,
    Insecure,
    JobFile,
    JobPlace,
    Kubeconfig,
    Limit,
    MasterWait,
    Namespace,
    OutputOption,
    OutputUri,
    Overrides,
    PodsFile,
    RayActors,
    RayAddress,
    RayListen,
    RunLauncher,
    StoreUrl,
    TlsCa,
    TlsCert,
    TlsKey,
    TlsName,
    TokenFile,
    Verbose,
    Workers,
)
from antinfer.cli.places import ClusterOptions, Credentials, Where
from antinfer.errors import AntinferError, Interrupted
from antinfer.launchers.local.headstart import HeadStart

app = typer.Typer(
    name="antinfer",
    help="Batch inference over a large data set: every input row exactly once, on machines that can vanish at any moment.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage or job file, 4 verify found a fault, 130 interrupted (the same command resumes).",
)


@app.command()
def run(
    context: typer.Context,
    job: JobFile,
    output: OutputOption = None,
    workers: Workers = None,
    limit: Limit = None,
    overrides: Overrides = None,
    store: StoreUrl = "",
    as_json: AsJson = False,
    force: Force = False,
    verbose: Verbose = False,
    launcher: RunLauncher = "local",
    address: RayAddress = "",
    listen: RayListen = "",
    actors: RayActors = None,
) -> None:
    """Run a job on this machine or a Ray cluster, or resume it where it stopped."""
    from antinfer.cli import running

    ray = running.ray_choice(launcher, address, listen, actors)
    options = running.Options(workers=workers, store=store, as_json=as_json, force=force, verbose=verbose, early=context.obj, ray=ray)
    running.run(job, overrides or [], output, limit, options)


@app.command()
def resume(
    context: typer.Context,
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Output place: folder or URI; or name of a job on Kubernetes.")],
    workers: Workers = None,
    store: StoreUrl = "",
    as_json: AsJson = False,
    force: Force = False,
    verbose: Verbose = False,
    launcher: RunLauncher = "local",
    address: RayAddress = "",
    listen: RayListen = "",
    actors: RayActors = None,
    namespace: Namespace = "",
    kube_context: Context = "",
    kubeconfig: Kubeconfig = "",
    certificates: Certificates = None,
    wait: MasterWait = True,
) -> None:
    """Go on with a half-done job, from what its output holds.

    A job on Kubernetes that failed or was cancelled is submitted again, as it was, with new tokens and certificates.
    """
    where = Where(output, ClusterOptions(namespace, kube_context, kubeconfig))
    if where.is_submitted:
        from antinfer.cli import admin

        admin.resume(output, where.cluster, admin.Renewal(store, certificates), wait=wait)
        return
    from antinfer.cli import running

    ray = running.ray_choice(launcher, address, listen, actors)
    options = running.Options(workers=workers, store=store, as_json=as_json, force=force, verbose=verbose, early=context.obj, ray=ray)
    running.resume(output, options)


@app.command()
def preview(
    job: JobFile,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, help="Rows to run through the pipeline.")] = 10,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print what the pipeline makes of the first rows.

    The job's output is not touched.
    """
    from antinfer.cli import running

    running.preview(job, overrides or [], rows=rows, as_json=as_json)


@app.command()
def plan(
    job: JobFile,
    output: OutputOption = None,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Accept very many parts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what the job would do: files, rows, shards, parts.

    Looks at the input and writes nothing.
    """
    from antinfer.cli import looking

    looking.plan(job, overrides or [], output, force=force, as_json=as_json)


@app.command()
def profile(
    job: JobFile,
    rows: Annotated[int | None, typer.Option("--rows", min=1, metavar="N", help="Measure with the first N rows; default: enough.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.05, metavar="S", help="Length of each measurement.")] = 1.0,
    overrides: Overrides = None,
    save: Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Also write the profile there, as JSON.")] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="OUTPUT", help="Compare this job's last profile with the run that wrote OUTPUT.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure each stage alone, and say which one will hold the job up.

    Runs on the first rows of the input, held in memory, and does not touch the job's output.
    """
    from antinfer.cli import profiling

    profiling.profile(job, overrides or [], rows=rows, seconds=seconds, save=save, compare_with=compare, as_json=as_json)


@app.command()
def status(
    where: JobPlace,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = "",
    insecure: Insecure = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every second until the job is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far a job is, and what its workers do."""
    from antinfer.cli import looking

    credentials = Credentials(token_file, tls_ca, tls_cert, tls_key, tls_name, insecure)
    looking.status(Where(where, ClusterOptions(namespace, context, kubeconfig), credentials), watch=watch, as_json=as_json)


@app.command()
def drain(
    where: JobPlace,
    workers: Annotated[int | None, typer.Argument(metavar="[K]", min=1, help="Give so many workers back: none takes their place.")] = None,
    worker: Annotated[str, typer.Option("--worker", metavar="NAME", help="Drain this one; another may take its place.")] = "",
    release: Annotated[bool, typer.Option("--release", help="Let others take the place of all that were given back.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = "",
    insecure: Insecure = False,
) -> None:
    """Let workers commit what they have finished, return the rest, and leave.

    Of K workers those go that hold the least uncommitted work, and the job stays that much smaller until --release.
    """
    from antinfer.cli import admin

    credentials = Credentials(token_file, tls_ca, tls_cert, tls_key, tls_name, insecure)
    admin.drain(Where(where, ClusterOptions(namespace, context, kubeconfig), credentials), workers, worker=worker, release=release)


@app.command()
def cancel(
    where: JobPlace,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Is told to workers and whoever runs the job.")] = "",
    forget: Annotated[bool, typer.Option("--forget", help="On Kubernetes: keep nothing that `antinfer resume` needs either.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    token_file: TokenFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = "",
    insecure: Insecure = False,
) -> None:
    """End a job. What is committed stays, and it can be resumed.

    On Kubernetes all its objects are removed, but for the ConfigMap that it is made from again.
    """
    from antinfer.cli import admin

    credentials = Credentials(token_file, tls_ca, tls_cert, tls_key, tls_name, insecure)
    admin.cancel(Where(where, ClusterOptions(namespace, context, kubeconfig), credentials), reason, forget=forget)


@app.command()
def logs(
    where: Annotated[str, typer.Argument(metavar="NAME", help="Name of a job on Kubernetes.")],
    worker: Annotated[str, typer.Option("--worker", metavar="NAME", help="Of this worker; default: of the master.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, metavar="N", help="Only the last N lines.")] = None,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Print what the master of a job on Kubernetes says, or one of its workers."""
    from antinfer.cli import admin

    admin.logs(Where(where, ClusterOptions(namespace, context, kubeconfig)), worker=worker, follow=follow, tail=tail)


@app.command()
def verify(
    output: OutputUri,
    quick: Annotated[bool, typer.Option("--quick", help="Compare records and names only; do not open the parts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove that every input row is in an output exactly once.

    Needs the output place alone: no master, no store, no input.
    """
    from antinfer.cli import looking

    looking.verify(output, quick=quick, as_json=as_json)


@app.command()
def chaos(
    job: JobFile,
    plan: Annotated[str, typer.Option("--plan", metavar="PLAN", help="Ready-made plan (spot, rolling, dark-day) or a YAML file.")] = "spot",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Chooses instants and victims.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="For report, picture and logs; default: chaos-JOB-PLAN-SEED.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", "-w", min=1, metavar="N", help="Instead of the plan's number.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, metavar="S", help="Slow the job down to about this long; 0: as fast as it is.")
    ] = None,
    overrides: Overrides = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep both outputs.")] = False,
    as_json: AsJson = False,
    launcher: Annotated[Literal["local", "kubernetes"], typer.Option("--launcher", help="Where it runs: here, or in a cluster.")] = "local",
    image: Annotated[str, typer.Option("--image", metavar="NAME", help="On Kubernetes: image for all pods.")] = "",
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    pods: PodsFile = None,
    grace: Grace = 30,
    egress: Egress = None,
    certificates: Certificates = None,
) -> None:
    """Run a job under a plan of faults, and prove that it lost nothing.

    Twice: undisturbed, and while its parts are killed, stopped and cut off. The job's own output is not touched. On Kubernetes pods are
    deleted, and both outputs lie beside the job's own, which pods and this machine must both reach.
    """
    from antinfer.cli import chaos as running

    made = {"grace_s": grace, "egress": egress or (), "certificates": certificates}
    cluster = running.cluster_of(launcher, image, ClusterOptions(namespace, context, kubeconfig), pods, **made)
    options = running.Options(seed, output=output, workers=workers, seconds=seconds, keep=keep, as_json=as_json)
    running.chaos(job, plan, overrides or [], options, cluster)


app.add_typer(quarantine, name="quarantine")


@app.command()
def story(
    output: OutputUri,
    what: Annotated[str, typer.Argument(metavar="SHARD[:ROW]", help="Number of a shard, and of a row in it.")],
    as_json: AsJson = False,
) -> None:
    """Tell the life of a shard, or of one row, over all reigns.

    Who was given it, what became of that, and which event brought it about.
    """
    from antinfer.cli import story as telling

    telling.story(output, what, as_json=as_json)


@app.command()
def events(
    output: OutputUri,
    event: Annotated[str | None, typer.Argument(metavar="[REIGN:EVENT]", help="Print this event alone, as JSON.")] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Replay every reign, and compare what it does with what was done.")] = False,
    lines: Annotated[bool, typer.Option("--lines", help="Print every event, one JSON object a line.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what the event log of an output holds, reign by reign."""
    from antinfer.cli import story as telling

    telling.events(output, event, replay=replay, lines=lines, as_json=as_json)


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to create.")] = Path("my-job")) -> None:
    """Write a small job that runs as it is, to start from.

    A job file, pipeline code and sample data.
    """
    from antinfer.cli import scaffold

    scaffold.init(folder)


@app.command()
def doctor(
    job: Annotated[Path | None, typer.Argument(metavar="[JOB]", help="Also check this job: code, GPUs, input, output place.")] = None,
    store: StoreUrl = "",
    as_json: AsJson = False,
) -> None:
    """Check this machine, the store and a job.

    Says what is missing and what to do about it.
    """
    from antinfer.cli import checkup

    checkup.doctor(job, store=store, as_json=as_json)


@app.command()
def master(
    job: JobFile,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Address for workers; also unix:///PATH.")],
    store: StoreUrl = "",
    output: OutputOption = None,
    overrides: Overrides = None,
    token_file: TokenFile = None,
    admin_token_file: Annotated[
        Path | None, typer.Option("--admin-token-file", metavar="FILE", help="Another token for status, drain and cancel.")
    ] = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without mutual TLS and token too.")] = False,
    force: Force = False,
    verbose: Verbose = False,
) -> None:
    """Run the master of a job; workers join it by its address.

    Beyond the loopback interface it listens with mutual TLS and a token only.
    """
    from antinfer.cli import serving

    secrets = serving.Secrets(token_file, admin_token_file, tls_ca, tls_cert, tls_key, insecure=insecure)
    serving.master(job, overrides or [], output, secrets, listen=listen, store=store, force=force, verbose=verbose)


@app.command()
def worker(
    address: Annotated[str, typer.Option("--master", metavar="HOST:PORT[,...]", help="Address of the master; several when it may move.")],
    token_file: TokenFile = None,
    name: Annotated[str, typer.Option("--name", help="Name in messages; default: host and process.")] = "",
    wait: Annotated[float, typer.Option("--wait", min=0, metavar="SECONDS", help="Give up when no master has answered by then.")] = 900,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = "",
    base_dir: Annotated[
        str, typer.Option("--base-dir", metavar="FOLDER", help="Where the user code lies here. Default: as the job says.")
    ] = "",
    insecure: Insecure = False,
    verbose: Verbose = False,
) -> None:
    """Run one worker until the job is over. SIGTERM or SIGUSR1 drains it: finished rows are committed, the rest goes back."""
    from antinfer.cli import serving

    tls = (tls_ca, tls_cert, tls_key, tls_name)
    serving.worker(address, tls, token_file=token_file, name=name, wait_s=wait, base_dir=base_dir, insecure=insecure, verbose=verbose)


@app.command()
def submit(
    job: JobFile,
    image: Annotated[
        str,
        typer.Option(
            "--image", metavar="NAME", help="Image with antinfer and what the pipeline needs, for all pods; --dry-run shows one without it."
        ),
    ] = "",
    launcher: Annotated[Literal["kubernetes"], typer.Option("--launcher", help="What runs it.")] = "kubernetes",
    namespace: Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Where its objects are created.")] = "default",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    pods: PodsFile = None,
    output: Annotated[str | None, typer.Option("--output", metavar="URI", help="Write there instead of the job file's sink.path.")] = None,
    overrides: Overrides = None,
    store: Annotated[str, typer.Option("--store", metavar="URL", envvar="ANTINFER_STORE", help="Redis or Valkey, kept in a Secret.")] = "",
    grace: Grace = 30,
    certificates: Certificates = None,
    egress: Egress = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every object, and create nothing.")] = False,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Let --dry-run print tokens, keys and passwords too.")] = False,
    format_: Annotated[Literal["yaml"], typer.Option("-o", help="How --dry-run prints.")] = "yaml",
    wait: MasterWait = True,
) -> None:
    """Run a job on a Kubernetes cluster, with ordinary rights in one namespace and nothing installed there.

    Its master runs as a Job and makes the workers as pods. Input and output must be reachable from the pods; user code beside the job file
    is sent along (up to 1 MB). Master and workers prove to each other who they are, by certificates made for the job.
    """
    from antinfer.cli import submitting

    image = image or (submitting.example_image() if dry_run else "")
    options = submitting.options_of(image, namespace, pods, grace_s=grace, egress=egress or (), certificates=certificates, store=store)
    cluster = ClusterOptions(namespace, context, kubeconfig)
    submitting.submit(job, overrides or [], output, options, cluster, dry_run=dry_run, show_secrets=show_secrets, wait=wait)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"antinfer {installed('antinfer')}")


def call(early: HeadStart | None) -> int:
    """Run the command of the command line; return its exit status. `early` is what was started for it already."""
    try:
        ended = app(standalone_mode=False, obj=early)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except (typer.Abort, KeyboardInterrupt):
        return Interrupted.exit_code
    except AntinferError as error:
        return render.error(error)
    except Exception as error:
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        # A usage error of the argument parser: it knows how to show itself.
        error.show()
        return int(error.exit_code)
    # What `typer.Exit` carries comes back as a value.
    return ended if isinstance(ended, int) else 0

"""The end of ``submit``, and of ``resume`` on Kubernetes: whether the master that was asked for runs."""

from __future__ import annotations

from typing import Final

import typer

from antinfer.cli.places import ClusterOptions

_PATIENCE_S: Final = 60.0
"""How long a master is waited for: a node may have to be made for it first, which takes minutes, and an image is refused within seconds."""


def wait_for_master(cluster: ClusterOptions, name: str) -> None:
    """Wait until the master runs, and say what it waits for when that takes long. Raises `InfraError` when it cannot run."""
    from antinfer.launchers.kubernetes import starting
    from antinfer.launchers.kubernetes.api import ApiError

    typer.echo(f"waiting for its master to run, {_PATIENCE_S:.0f} s at most (--no-wait: do not)", err=True)
    jobs = cluster.jobs()
    try:
        waits_for = starting.wait_for_master(jobs, jobs.find(name), _PATIENCE_S)
    except ApiError as error:
        # The job is there: whoever may create jobs need not be one who may look at pods.
        typer.echo(f"whether its master runs cannot be seen: {error}", err=True)
        return
    typer.echo(f"its master does not run yet: {waits_for}" if waits_for else "its master runs")

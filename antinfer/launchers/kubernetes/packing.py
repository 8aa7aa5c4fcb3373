"""From a job and what people say about its pods to what is submitted: certificates are made, code and credentials sorted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from antinfer.launchers.certificates import make_certificates, read_certificates
from antinfer.launchers.kubernetes.secret import Secrets
from antinfer.launchers.kubernetes.submission import Submission, object_name, server_names
from antinfer.spec.canonical import document_json, public_document
from antinfer.spec.codeprint import code_files
from antinfer.spec.schema import JobSpec

TEMPLATES: Final = ("master", "worker", "protected", "preemptible")
"""The pods that something can be laid over."""


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """Where a job is to run, and by what."""

    image: str
    namespace: str = "default"
    pods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is laid over the pods, by `TEMPLATES`."""
    store_url: str = field(default="", repr=False)
    grace_s: int = 30
    egress: tuple[int, ...] = ()
    certificates: Path | None = None
    """Folder of certificates; None: they are made."""


def packed(spec: JobSpec, job: str, options: SubmitOptions) -> Submission:
    """Return a job as it is submitted.

    Args:
        spec: the job.
        job: its id.
        options: where it is to run.

    Raises:
        UsageError: The certificates are no good.
    """
    names = server_names(object_name(spec.name, job), options.namespace)
    certificates = make_certificates(names) if options.certificates is None else read_certificates(options.certificates, names)
    whole, public = document_json(spec), public_document(spec)
    return Submission(
        job=job,
        title=spec.name,
        document=json.dumps(public, sort_keys=True),
        code={path: Path(spec.base_dir, path).read_bytes() for path in code_files(spec)},
        image=options.image,
        secrets=Secrets(certificates, store_url=options.store_url or spec.store.url, document="" if json.loads(whole) == public else whole),
        namespace=options.namespace,
        egress=options.egress,
        grace_s=options.grace_s,
        worker=options.pods.get("worker", {}),
        classes={name: options.pods.get(name, {}) for name in ("protected", "preemptible")},
        master=options.pods.get("master", {}),
    )

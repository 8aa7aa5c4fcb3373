"""One writer per job: hands out leases, makes commits durable, publishes results and finishes the job."""

if __name__ != "antinfer.master":
    raise ImportError(f"import antinfer.master, not {__name__}: a second copy of its modules would break isinstance checks")

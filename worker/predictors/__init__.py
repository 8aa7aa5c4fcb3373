"""Processes that run user code: a model per process, batches through shared memory, supervision."""

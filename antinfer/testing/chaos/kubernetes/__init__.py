"""Faults on a Kubernetes cluster, by its API alone: pods are deleted, as a drained node or a preempted machine does to them."""

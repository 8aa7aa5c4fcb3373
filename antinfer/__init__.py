"""Elastic, fault-tolerant batch inference: every input row exactly once, on machines that can vanish at any moment."""

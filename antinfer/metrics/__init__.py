"""Accumulators: metrics over all output rows whose partial states travel inside commits and merge without depending on grouping or order.

Importing this package imports numpy; who needs no metrics does not import it.
"""

from antinfer.metrics.accumulators import AccumulatorSet
from antinfer.metrics.base import Accumulator, Batch
from antinfer.metrics.config import Config
from antinfer.metrics.exact import ExactSum
from antinfer.metrics.registry import BUILT_IN

__all__ = ["BUILT_IN", "Accumulator", "AccumulatorSet", "Batch", "Config", "ExactSum"]

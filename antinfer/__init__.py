"""Elastic, fault-tolerant batch inference: every input row exactly once, on machines that can vanish at any moment.

The names below are the public API; they are imported when first used, so that ``import antinfer`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antinfer.errors import (
        AntinferError as AntinferError,
    )
    from antinfer.errors import (
        DataError as DataError,
    )
    from antinfer.errors import (
        InfraError as InfraError,
    )
    from antinfer.errors import (
        JobFileError as JobFileError,
    )
    from antinfer.errors import (
        UserCodeError as UserCodeError,
    )
    from antinfer.errors import (
        UserError as UserError,
    )

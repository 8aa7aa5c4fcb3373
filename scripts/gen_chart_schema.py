"""Write the keys of a job file into the schema of the Helm chart's values, or check that they are those of `antinfer.spec`.

The rest of the schema is written by hand. Values of keys are left to the master, which checks them with better words.

Usage: ``python scripts/gen_chart_schema.py [--check]``.
"""

from __future__ import annotations

import json
import sys
from typing import Any, get_args

from pydantic import BaseModel
from reference import ROOT, main

from antinfer.spec.schema import STAGE_MEANINGS, JobSpec, StageSpec

SCHEMA = "deploy/helm/antinfer/values.schema.json"
OWN: dict[str, dict[str, Any]] = {"sink.path": {"$ref": "#/definitions/Place"}, "source.path": {"type": ["string", "array"]}}
"""What is known of values: places that every pod reaches."""
HIDDEN = {"base_dir", "store.url"}
"""Set by the loader; and what may hold a password, for which the chart has a value of its own."""
HIDDEN_OF_STAGES = {"kind", "target", "into", "parallel"}
"""Written as the kind's own key."""
STAGE = {"$ref": "#/definitions/Stage"}


def keys_of(model: type[BaseModel], at: str = "") -> dict[str, Any]:
    """Return the schema of a mapping with the keys of `model`, and of those inside it; `at` is the path to it, with a dot at its end."""
    hidden = HIDDEN_OF_STAGES if model is StageSpec else HIDDEN
    properties = {
        name: OWN.get(at + name) or value_of(field.annotation, f"{at}{name}.")
        for name, field in sorted(model.model_fields.items())
        if at + name not in hidden
    }
    return {"additionalProperties": False, "properties": properties}


def value_of(annotation: Any, at: str) -> dict[str, Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {"type": "array", "items": STAGE} if annotation is StageSpec else keys_of(annotation, at)
    found = [value_of(part, at) for part in get_args(annotation)]
    return next((each for each in found if each), {})


def render() -> str:
    schema = json.loads((ROOT / SCHEMA).read_text())
    stage = keys_of(StageSpec)
    stage["properties"] |= {kind: {} for kind in STAGE_MEANINGS}
    schema["definitions"] |= {"JobFile": {"type": "object", **keys_of(JobSpec)}, "Stage": {"type": "object", **stage}}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", SCHEMA, render))

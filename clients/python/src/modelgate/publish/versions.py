"""What a version of a model is in the registry. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METRICS = ("eval_f1", "f1")
DIGEST_TAG = "modelgate.digest"
CONTRACT_TAG = "modelgate.contract"


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry."""

    model_name: str
    version: str
    f1: float | None  # by the exact names eval_f1, f1, in this order
    run_id: str
    source: str
    pointer: str = ""  # what chose it: "alias:production", "stage:Production", "newest"
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The digest that was published with it, or an empty string."""
        return self.tags.get(DIGEST_TAG, "")


def f1_of(metrics: Mapping[str, Any]) -> float | None:
    """The F1 among metrics, by its exact name. Never another that only has f1 in its name."""
    for name in METRICS:
        if name in metrics:
            value = float(metrics[name])
            return value if math.isfinite(value) and 0 <= value <= 1 else None
    return None

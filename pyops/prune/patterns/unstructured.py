"""unstructured: each weight by itself."""

from __future__ import annotations

import re

from .base import pattern
from .units import Units


@pattern("unstructured", "unstructured")
class Unstructured(Units):
    """Units of one weight."""

    @classmethod
    def parse(cls, name: str, found: re.Match[str]) -> Unstructured:
        """See ``Pattern``."""
        return cls(name)

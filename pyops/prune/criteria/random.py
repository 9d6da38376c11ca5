"""random: what other criteria have to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Criterion, Work, criterion


@criterion("random")
class Random(Criterion):
    """Uniform in [0, 1), from the ``generator`` or, without one, torch's own of the CPU."""

    def scores(self, work: Work) -> Tensor:
        """See ``Criterion``."""
        device = "cpu" if self.generator is None else self.generator.device
        numbers = torch.rand(work.weight.shape, generator=self.generator, device=device)
        return numbers.to(work.weight.device)

"""A dataset that runs a model, importable by name: worker processes start by importing it."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class OutputsOf(Dataset[Tensor]):
    """Item ``i`` is ``model(inputs[i])``, computed in the worker process."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        self.model = model
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: int) -> Tensor:
        with torch.inference_mode():
            out: Tensor = self.model(self.inputs[i])
        return out

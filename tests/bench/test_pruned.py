"""What is sparse: which weights of ResNet-50 the bench prunes, and peers that multiply with CSR."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pyops.testing.models import resnet


def test_every_convolution_but_the_first_is_pruned_by_magnitude(load: Any) -> None:
    dense = resnet.random_model(50)
    before = {name: t.clone() for name, t in dense.state_dict().items()}
    model = load("models.pruned_resnet50").pruned(dense, 0.9)
    kept = dense.state_dict()
    assert all(torch.equal(kept[name], t) for name, t in before.items())
    assert torch.equal(model.conv1.weight, dense.conv1.weight)
    assert torch.equal(model.fc.weight, dense.fc.weight)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    del layers["conv1"]
    assert len(layers) == 52
    for name, layer in layers.items():
        old, alive = kept[f"{name}.weight"], layer.weight != 0
        assert int(alive.sum()) == old.numel() - round(0.9 * old.numel())
        assert torch.equal(layer.weight[alive], old[alive])
        assert old[~alive].abs().max() <= old[alive].abs().min()


def test_norms_of_the_pruned_net_are_settled(load: Any) -> None:
    bench = load("models.pruned_resnet50")
    case = next(bench.cases("tiny"))
    assert case.kind == "convnet pruned"
    assert case.name == "pruned_resnet50 90% fp32 1x64"
    norm = case.model.layer4[2].bn2
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.inference_mode():
        case.model(bench.images.synthetic(8, 128, 0))
    spread = seen[0].var((0, 2, 3)) / norm.running_var
    assert 0.9 < spread.min()
    assert spread.max() < 1.1


@pytest.mark.parametrize("file", ["mkl_csr", "scipy_csr"])
@pytest.mark.parametrize("shape", [(1, 8, 4), (7, 33, 18)])
def test_csr_peers_compute_the_product(file: str, shape: tuple[int, int, int], load: Any) -> None:
    rows, inputs, outputs = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    weight *= torch.rand(outputs, inputs, generator=generator) < 0.3
    weight[1] = 0
    case = load("case").Case(
        kind="sparse_linear",
        name=f"sparse_linear {rows}x{inputs}x{outputs}",
        operations=2.0 * rows * inputs * outputs,
        bytes_moved=1.0,
        make_ours=lambda: None,
        check_ours=lambda result: None,
        check_peer=lambda result: None,
        tensors={"x": x, "weight": weight},
    )
    peer = load(f"peers.{file}")
    assert case.kind in peer.KINDS
    try:
        result = peer.make(case)()
    except load("case").UnavailableError as error:
        pytest.skip(str(error))
    exact = x.double() @ weight.double().t()
    bound = (inputs + 2) * torch.finfo().eps * (x.abs().double() @ weight.abs().double().t())
    assert result.shape == exact.shape
    assert result.dtype == torch.float32
    assert ((result.double() - exact).abs() <= bound).all()

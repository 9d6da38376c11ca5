"""ResNet-50 with random weights, pruned by magnitude: our sparse net and dense peers, also int8.

Every convolution has the same share of zeros, wherever its smallest weights are; the first and the
classifier have none. Operations are those of the dense net.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from case import Call, Case
from convnets import BATCHES, SIZE, TINY_BATCHES, TINY_SIZE, Net
from torch import Tensor, nn

import pyops
from pyops.testing.models import images, resnet

SLOW_PEERS = True
SPARSITIES, TINY_SPARSITIES = (0.8, 0.9, 0.95), (0.9,)
RIVALS = {
    "sparse peers": ("deepsparse",),
    "dense peers": ("torch fp32", "onnxruntime fp32", "pyops dense"),
}


def cases(shapes: str, batches: tuple[int, ...] = BATCHES) -> Iterator[Case]:
    """Yield one case per sparsity, batch and precision."""
    tiny = shapes == "tiny"
    dense = resnet.random_model(50)
    for sparsity in TINY_SPARSITIES if tiny else SPARSITIES:
        net = Net(
            f"pruned_resnet50 {sparsity:.0%}",
            pruned(dense, sparsity),
            images=lambda count, size: images.synthetic(count, size, seed=1),
            calibration=lambda count, size: images.synthetic(count, size, seed=2),
        )
        for batch in TINY_BATCHES if tiny else batches:
            yield in_float(net, batch, TINY_SIZE if tiny else SIZE)
            yield in_int8(net, batch, TINY_SIZE if tiny else SIZE)


def in_float(net: Net, batch: int, size: int) -> Case:
    """Return the net's float case with our sparse call and the peers of pruned nets."""
    case = net.case("fp32", batch, size)
    (x,) = case.inputs
    return replace(case, kind="convnet pruned", make_ours=lambda: ours(net.model, x), rivals=RIVALS)


def in_int8(net: Net, batch: int, size: int) -> Case:
    """Return the net's case in int8: the same numbers as our dense net's, sparse where it pays."""
    case = net.case("int8", batch, size)
    (x,) = case.inputs

    def make_ours() -> Call:
        assert case.calibration is not None
        fast = pyops.sparsify(net.model, dtype="int8", calibration=case.calibration())
        return lambda: fast(x)

    rivals = {"dense int8 peers": ("pyops dense int8", "onnxruntime int8", "openvino int8")}
    return replace(case, kind="convnet pruned int8", make_ours=make_ours, rivals=rivals)


def ours(model: nn.Module, x: Tensor) -> Call:
    """Return the call of our pruned net: sparse kernels where they pay."""
    fast = pyops.fuse(model, example_inputs=(x,), algorithm="sparse")
    return lambda: fast(x)


def pruned(dense: resnet.ResNet, sparsity: float) -> resnet.ResNet:
    """Return a copy without the smallest weights of each layer, its norms settled again."""
    masked = pyops.prune(dense, sparsity, include=nn.Conv2d, exclude="conv1")
    model = pyops.prune.unmask(masked, inplace=True)
    assert isinstance(model, resnet.ResNet)
    batch = images.synthetic(resnet.SETTLING_BATCH, resnet.SETTLING_SIZE, seed=0)
    return resnet.settle(model, batch)

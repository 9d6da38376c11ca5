"""What follows pruning: unmask, files, copies, other workflows."""

from __future__ import annotations

import copy
import io
import json
import pickle

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import MaskedConv1d, MaskedConv2d, MaskedLinear


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 16, 3), nn.Linear(16, 10)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, two) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_unmask():
    new = pyops.prune(net(), 0.8)
    x = torch.randn(2, 3, 8, 8)
    plain = pyops.prune.unmask(new.eval())
    assert torch.equal(plain(x), new(x))
    assert type(plain.conv) is nn.Conv2d
    assert set(plain.state_dict()) == set(net().state_dict())
    reason = pyops.explain(plain).rows[0].reason
    assert reason.startswith(
        "pruned: unstructured, l1, by layer; 80.1 % of its weights were 0 when it was unmasked; "
        "80% of its weights are 0: sparse kernels (pyops.sparsify) pay from "
    )
    assert type(new.conv) is MaskedConv2d
    assert plain.fc.weight.requires_grad
    weight = new.fc.weight
    assert pyops.prune.unmask(new, inplace=True) is new
    assert new.fc.weight is weight
    assert type(new.fc) is nn.Linear


def test_unmask_refuses():
    with pytest.raises(ValueError, match=r"^unmask: Net holds no masked layer$"):
        pyops.prune.unmask(net())
    with pytest.raises(TypeError, match=r"^unmask takes an nn.Module, but got str$"):
        pyops.prune.unmask("model")
    with pytest.raises(ValueError, match="inplace=True cannot turn the MaskedLinear itself"):
        pyops.prune.unmask(MaskedLinear(2, 2), inplace=True)


def test_files_deepcopy_and_pickle(tmp_path):
    model = nn.Sequential(nn.Linear(12, 12), nn.Conv1d(3, 12, 3), nn.Linear(12, 12))
    model[2].weight = model[0].weight
    new = pyops.prune(model, 0.7)
    pyops.save(new, tmp_path / "pruned")
    loaded = pyops.load(tmp_path / "pruned", copy.deepcopy(model))
    assert loaded[0].weight is loaded[2].weight
    on_meta = pyops.load(tmp_path / "pruned", copy.deepcopy(model).to("meta"))
    fresh = pyops.prune(copy.deepcopy(model), 0.1)
    fresh.load_state_dict(new.state_dict())
    file = io.BytesIO()
    torch.save(new, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)
    for one in (loaded, on_meta, fresh, saved, copy.deepcopy(new), pickle.loads(pickle.dumps(new))):
        assert same(values(one), values(new))
        assert [type(layer) for layer in one] == [MaskedLinear, MaskedConv1d, MaskedLinear]
    assert pyops.explain(loaded) == pyops.explain(new) == pyops.explain(copy.deepcopy(new))
    with pytest.raises(ValueError, match="the skeleton must be the float model, but 0 is conv"):
        pyops.load(tmp_path / "pruned", new)
    other = nn.Sequential(nn.Linear(12, 12), nn.Conv1d(3, 12, 3), nn.ReLU())
    with pytest.raises(ValueError, match="module '2' is a ReLU in the skeleton but a Linear"):
        pyops.load(tmp_path / "pruned", other)


def test_a_file_whose_plan_masks_what_it_should_not(tmp_path):
    import safetensors.torch
    from safetensors import safe_open

    pyops.save(pyops.prune(nn.Sequential(nn.Linear(12, 12), nn.ReLU()), 0.7), tmp_path / "a")
    with safe_open(tmp_path / "a", "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(tmp_path / "a")
    skeleton = nn.Sequential(nn.Linear(12, 12), nn.ReLU())
    for masked, message in (
        (["1"], "'1', a ReLU, cannot be masked"),
        (["2"], "damaged plan: '2' is masked, but is no float layer"),
        (["0", "0"], r"damaged plan: masked layers twice in \['0', '0'\]"),
        (3, "damaged plan: ValueError: 3 is not a list of strings"),
        ([], "the file holds '0.weight_mask', which the skeleton lacks"),
    ):
        plan = {**json.loads(metadata["plan"]), "masked": masked}
        changed = {**metadata, "plan": json.dumps(plan)}
        safetensors.torch.save_file(tensors, tmp_path / "b", metadata=changed)
        with pytest.raises(ValueError, match=message):
            pyops.load(tmp_path / "b", skeleton)


def test_quantize_and_fuse_leave_masked_layers_and_say_how_to_go_on():
    model = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128))
    new = pyops.prune(model, 0.5, include="0")
    why = "its weight is masked: pyops.prune.unmask(model) bakes the mask in"
    for made in (pyops.quantize(new, fuse=False), pyops.fuse(new)):
        assert type(made[0]) is MaskedLinear
        assert type(made[2]) is not nn.Linear
        assert pyops.explain(made).rows[0].reason.startswith(why)
    plain = pyops.quantize(pyops.prune.unmask(new))
    codes = plain[0].weight
    assert float((codes == 0).double().mean()) >= 0.5

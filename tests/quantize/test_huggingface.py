"""transformers models: tiny random BERT and GPT-2, built from a config, nothing downloaded."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import Int8Linear

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

IDS = torch.tensor([[5, 9, 2, 77, 31, 8], [4, 1, 1, 60, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
    )
    return transformers.BertModel(config).eval()


def gpt2(**options):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=100, n_positions=32, n_embd=64, n_layer=2, n_head=4, **options
    )
    return transformers.GPT2LMHeadModel(config).eval()


def cosine(a, b):
    return nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)


def kernels(model):
    return {row.name for row in pyops.explain(model).rows if row.kernel}


def test_bert():
    model = bert()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    new = pyops.quantize(model, strict=True)
    assert len(kernels(new)) == 2 * 6 + 1
    out = new(input_ids=IDS, attention_mask=MASK)  # outside no_grad: nothing requires grad
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=MASK)
    assert cosine(out.last_hidden_state, expected.last_hidden_state) > 0.999
    assert cosine(out.pooler_output, expected.pooler_output) > 0.999
    assert type(out) is type(expected)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bert_in_low_precision(dtype):
    model = bert().to(dtype)
    new = pyops.quantize(model)
    out = new(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert out.dtype == dtype
    expected = bert()(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert cosine(out.float(), expected) > 0.999


def test_bert_with_example_inputs():
    example = {"input_ids": IDS, "attention_mask": MASK}
    new = pyops.quantize(bert(), example_inputs=example, never_slower=False)
    rows = pyops.explain(new).rows
    assert all(row.sqnr_db > 25 for row in rows)
    encoding = transformers.BatchEncoding(example)
    timed = pyops.quantize(bert(), example_inputs=encoding)
    assert all(row.ms_before > 0 for row in pyops.explain(timed).rows)


def test_bert_round_trips(tmp_path):
    new = pyops.quantize(bert())
    pyops.save(new, tmp_path / "bert.safetensors")
    expected = new(input_ids=IDS, attention_mask=MASK).last_hidden_state
    with torch.device("meta"):
        skeleton = transformers.BertModel(bert().config)
    for other in (
        copy.deepcopy(new),
        pickle.loads(pickle.dumps(new)),
        pyops.load(tmp_path / "bert.safetensors", bert()),
        pyops.load(tmp_path / "bert.safetensors", skeleton),
    ):
        assert torch.equal(other(input_ids=IDS, attention_mask=MASK).last_hidden_state, expected)
        assert pyops.explain(other) == pyops.explain(new)


def test_gpt2_conv1d_and_the_tied_head():
    model = gpt2()
    new = pyops.quantize(model)
    assert len(kernels(new)) == 2 * 4
    attention = new.transformer.h[0].attn.c_attn
    assert type(attention) is Int8Linear
    assert (attention.in_features, attention.out_features) == (64, 192)
    assert attention.weight.shape == model.transformer.h[0].attn.c_attn.weight.shape == (64, 192)
    half_step = attention.weight_scale / 2
    error = (attention.weight - model.transformer.h[0].attn.c_attn.weight).abs()
    assert (error <= half_step * 1.001).all()
    assert attention.state_dict()["weight"].shape == (192, 64)
    assert new.lm_head.weight is new.transformer.wte.weight
    rows = {row.name: row for row in pyops.explain(new).rows}
    assert rows["transformer.h.0.attn.c_attn"].before == "Conv1D"
    assert rows["lm_head"].reason == (
        "weight is tied to transformer.wte.weight, which stays in float"
    )
    with torch.no_grad():
        assert cosine(new(IDS).logits, model(IDS).logits) > 0.999


def test_gpt2_generates():
    new = pyops.quantize(gpt2())
    ids = IDS[:1, :4]
    out = new.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, pad_token_id=0
    )
    assert out.shape == (1, 9)


def test_gpt2_round_trips(tmp_path):
    new = pyops.quantize(gpt2())
    pyops.save(new, tmp_path / "gpt2.safetensors")
    with torch.device("meta"):
        skeleton = transformers.GPT2LMHeadModel(gpt2().config)
    for other in (
        copy.deepcopy(new),
        pickle.loads(pickle.dumps(new)),
        pyops.load(tmp_path / "gpt2.safetensors", gpt2()),
        pyops.load(tmp_path / "gpt2.safetensors", skeleton),
    ):
        assert torch.equal(other(IDS).logits, new(IDS).logits)
        assert other.lm_head.weight is other.transformer.wte.weight


def test_gpt2_state_dict_and_wrong_orientation():
    new = pyops.quantize(gpt2())
    other = pyops.quantize(gpt2())
    state = new.state_dict()
    key = "transformer.h.0.attn.c_attn.weight"
    other.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"size mismatch .*\[64, 192\].*\[192, 64\]"):
        other.load_state_dict({**state, key: state[key].t()})


def test_gpt2_inplace_and_chosen_by_class():
    from transformers.pytorch_utils import Conv1D

    model = gpt2()
    expected = pyops.quantize(gpt2())(IDS).logits
    assert pyops.quantize(model, inplace=True, include=Conv1D) is model
    assert torch.equal(model(IDS).logits, expected)


def test_an_untied_head_is_converted():
    new = pyops.quantize(gpt2(tie_word_embeddings=False), strict=True)
    assert type(new.lm_head) is Int8Linear


@pytest.mark.slow
def test_bert_compiles_without_a_graph_break():
    new = pyops.quantize(bert())
    compiled = torch.compile(new, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        out = compiled(input_ids=IDS, attention_mask=MASK).last_hidden_state
        expected = new(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert (out - expected).abs().max() < 1e-4


def test_importing_pyops_does_not_import_transformers():
    import subprocess
    import sys

    script = (
        "import sys, pyops; "
        "heavy = {'transformers', 'rich', 'safetensors', 'torch._dynamo'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)

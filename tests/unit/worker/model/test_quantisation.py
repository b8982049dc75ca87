"""4-bit weights: close to the dense weights, and the same by either way through a layer."""

import pytest
import torch
from torch import nn

from emx_training.pretrain.demo_architecture import demo_config, random_model
from emx_worker.model.int4 import group_fitting, quantisation
from emx_worker.model.int4.group_fitting import GROUP, quantise
from emx_worker.model.int4.quantisation import (
    Int4Linear,
    can_be_int4,
    packed_order_is_known,
    rest_to_fp32,
    to_int4,
    unpack,
)
from emx_worker.model.loading import LoadedModel


def linear(inputs: int = 192, outputs: int = 512, bias: bool = False) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(inputs + outputs)
        layer = nn.Linear(inputs, outputs, bias=bias)
        nn.init.normal_(layer.weight, mean=0.01, std=0.02)
    return layer.requires_grad_(False)


def rows(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


def error(out: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((out - wanted).norm() / wanted.norm())


def over_the_whole_range(weight: torch.Tensor) -> torch.Tensor:
    """Quantise with codes from each group's smallest to its largest weight, and dequantise, without any bf16."""
    grouped = weight.view(len(weight), -1, GROUP)
    low, high = (edge.unsqueeze(-1) for edge in grouped.aminmax(dim=-1))
    step = (high - low) / 15
    return (((grouped - low) / step).round() * step + low).view_as(weight)


@pytest.mark.parametrize("outputs", [16, 32, 48, 64, 80, 512])
@pytest.mark.parametrize("inputs", [32, 64, 96, 192])
def test_each_group_comes_back_at_least_as_near_as_over_its_whole_range(inputs: int, outputs: int) -> None:
    dense = linear(inputs, outputs)
    lost = ((Int4Linear(dense).weights() - dense.weight).view(outputs, -1, GROUP)).norm(dim=-1)
    plain = (over_the_whole_range(dense.weight) - dense.weight).view(outputs, -1, GROUP).norm(dim=-1)
    bf16 = GROUP**0.5 * dense.weight.abs().max() * 2**-8
    assert (lost <= plain + bf16).all()
    assert lost.square().mean() < 0.95 * plain.square().mean()


def test_a_weight_far_from_the_others_of_its_group_is_kept() -> None:
    """Clipped to the others' range, it would be lost: the narrower ranges are only taken where they lose less."""
    dense = linear()
    dense.weight[3, 40] = 1.0
    assert abs(float(Int4Linear(dense).weights()[3, 40]) - 1) < 0.05


@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (48, 96), (640, 2048), (16, 2**18)])
def test_weights_are_quantised_the_same_in_blocks_as_in_one(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    in_blocks = quantise(weight)
    monkeypatch.setattr(group_fitting, "_BLOCK", weight.numel())
    assert all(map(torch.equal, in_blocks, quantise(weight)))


@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_a_layer_answers_nearly_as_the_dense_one_does(tokens: int) -> None:
    dense, hidden = linear(), rows(tokens, 192)
    assert 0 < error(Int4Linear(dense)(hidden), dense(hidden)) < 0.12


def test_kernel_and_fp32_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, hidden = Int4Linear(linear(192, 80)), rows(40, 192)
    by_kernel = layer(hidden)
    monkeypatch.setattr(quantisation, "DENSE_TOKENS", 1)
    monkeypatch.setattr(quantisation, "BF16_UNITS", False)
    by_fp32 = layer(hidden)
    assert 0 < error(by_kernel, by_fp32) < 0.01
    assert torch.equal(by_fp32, hidden @ layer.weights().t())
    monkeypatch.setattr(quantisation, "BF16_UNITS", True)
    assert 0 < error(layer(hidden), by_fp32) < 0.01


def test_the_packed_order_of_this_cpu_is_understood() -> None:
    codes = torch.randint(0, 16, (112, 128), dtype=torch.int32)
    assert torch.equal(unpack(torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)), codes)
    assert packed_order_is_known()


def test_an_unreadable_order_only_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, hidden = linear(), rows(3, 192)
    monkeypatch.setattr(quantisation, "DENSE_TOKENS", 1)
    monkeypatch.setattr(quantisation, "unpack", lambda packed: torch.zeros(512, 192))
    packed_order_is_known.cache_clear()
    try:
        assert not packed_order_is_known()
        assert error(Int4Linear(dense)(hidden), dense(hidden)) < 0.12
    finally:
        packed_order_is_known.cache_clear()


def test_an_image_goes_the_same_way_whatever_its_batch_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "DENSE_TOKENS", 10)
    layer, batch = Int4Linear(linear()), rows(4 * 9, 192).view(4, 9, 192)
    assert torch.equal(layer(batch)[2:3], layer(batch[2:3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dense_tokens", [1, 1000])
def test_a_layer_keeps_shape_and_dtype(
    dtype: torch.dtype, dense_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "DENSE_TOKENS", dense_tokens)
    dense, hidden = linear(bias=True).to(dtype), rows(6, 192).view(2, 3, 192).to(dtype)
    out = Int4Linear(dense)(hidden)
    assert (out.shape, out.dtype) == ((2, 3, 512), dtype)
    assert error(out.float(), dense(hidden).float()) < 0.12


def test_a_constant_layer_stays_finite() -> None:
    codes, scales_and_zeros = quantise(torch.full((16, 64), 0.1))
    assert scales_and_zeros.isfinite().all()
    dense = nn.Linear(64, 16, bias=False)
    dense.weight.data.fill_(0.1)
    assert torch.allclose(Int4Linear(dense).weights(), dense.weight, atol=1e-3)
    assert codes.min() >= 0


def test_only_suitable_widths_are_made_int4() -> None:
    assert can_be_int4(linear(192, 16))
    assert can_be_int4(linear(96, 16))
    assert not can_be_int4(linear(100, 16))
    assert not can_be_int4(linear(64, 17))


def test_only_the_decoder_is_made_int4_and_all_else_fp32() -> None:
    model = random_model(0, demo_config()).to(torch.bfloat16)
    to_int4(model.model.language_model)
    rest_to_fp32(model)
    kinds = {
        name: type(module) for name, module in model.named_modules() if name.endswith(("_proj", "fc1", "head"))
    }
    assert {kind for name, kind in kinds.items() if "language_model" in name} == {Int4Linear}
    assert {kind for name, kind in kinds.items() if "language_model" not in name} == {nn.Linear}
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_the_decoder_alone_is_small(loaded: LoadedModel) -> None:
    model = loaded.model.model
    projection = model.language_model.layers[0].mlp.gate_proj
    weights = sum(t.numel() * t.element_size() for t in [*projection.parameters(), *projection.buffers()])
    bits = 8 * weights / (projection.in_features * projection.out_features)
    assert bits <= {"none": 32, "int4-torch": 5, "nf4-bitsandbytes": 4}[loaded.provenance.quantisation]
    for dense in (model.vision_tower.encoder.layers[0].mlp.fc1, loaded.model.lm_head):
        assert type(dense) is nn.Linear
        assert dense.weight.dtype == torch.float32

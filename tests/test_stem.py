"""The stem: shapes, parts, gradients, kernels, precision, processes."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.multiprocessing.spawn import spawn

import dtwpt
from dtwpt.nn import ColourMix, EnergyNorm2d, WaveletStem
from dtwpt.nn.mixing import COLOURS
from dtwpt.packets import PacketBank
from tests.photographs import crops
from tests.strategies import noise, relative_error

OPERATORS = ["cmod", "rmax"]


def conv_stem(
    kernel_size: int = 7,
    stride: int = 2,
    padding: int = 3,
    pool_padding: int = 1,
    ceil: bool = False,
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, pool_padding, ceil_mode=ceil),
    )


def photographs(size: int, count: int) -> Tensor:
    """Grey crops in three channels."""
    grey = torch.from_numpy(np.stack(list(crops(size, count)))).float()
    return grey[:, None].expand(-1, 3, -1, -1).contiguous()


@given(
    st.integers(16, 70),
    st.integers(16, 70),
    st.sampled_from(
        [
            # depth, kernel_size, padding, pool_padding, ceil_mode
            (2, 7, 3, 1, False),
            (2, 3, 1, 1, False),
            (2, 7, 3, 0, True),
            (2, 5, 0, 0, False),
            (3, 11, 2, 0, False),
            (3, 11, 5, 1, False),
            (1, 3, 1, 1, False),
        ]
    ),
    st.sampled_from(OPERATORS),
    st.sampled_from([0, 3]),
)
@settings(max_examples=30)
def test_shape_is_that_of_the_layers_replaced(
    height: int, width: int, geometry: Any, operator: str, free: int
) -> None:
    depth, kernel_size, padding, pool_padding, ceil_mode = geometry
    stem = WaveletStem(
        out_channels=5,
        depth=depth,
        operator=operator,
        free_channels=free,
        packets="all",
        kernel_size=kernel_size,
        padding=padding,
        pool_padding=pool_padding,
        ceil_mode=ceil_mode,
    )
    original = conv_stem(kernel_size, 2 ** (depth - 1), padding, pool_padding, ceil_mode)
    x = torch.rand(2, 3, height, width)
    size = tuple(original(x).shape[2:])
    assert tuple(stem(x).shape) == (2, 5, *size)
    assert stem.output_size(height, width) == size


@pytest.mark.parametrize(
    ("operator", "colour"),
    [("cmod", "luma"), ("rmax", "mix"), ("cmod", "rank1"), ("rmax", "none")],
)
def test_channels_are_what_their_kernels_say(operator: str, colour: str) -> None:
    """The whole stem by its equivalent kernels: one plain convolution each, away from borders."""
    torch.manual_seed(0)
    stem = WaveletStem(3, 9, 2, operator, free_channels=4, colour=colour).double()
    x = torch.from_numpy(noise(1, 1, 3, 96, 92))
    y = stem(x)
    kernels = stem.resulting_kernel().detach()
    assert kernels.shape == (9, 3, 42, 42)
    assert copy.deepcopy(stem).half().resulting_kernel().dtype == torch.complex64
    stride = 4 if operator == "cmod" else 2
    # Kernel and pixel 0 of the image are this far apart.
    margin = (42 - 4) // 2
    padded = nn.functional.pad(x, (margin,) * 4)
    conv = nn.functional.conv2d
    z = torch.complex(conv(padded, kernels.real, stride=2), conv(padded, kernels.imag, stride=2))
    wavelet = z[:, :5, :: stride // 2, :: stride // 2]
    expected = [
        stem._normed(wavelet.abs() if operator == "cmod" else wavelet.real).relu(),
        stem.free[1](z[:, 5:].real).relu() if stem.free is not None else None,
    ]
    pooled = [
        part if operator == "cmod" and index == 0 else nn.functional.max_pool2d(part, 3, 2, 1)
        for index, part in enumerate(expected)
        if part is not None
    ]
    # Borders differ, and through the statistics everything a little: correlation tells.
    for channel in range(9):
        part, at = (pooled[0], channel) if channel < 5 else (pooled[1], channel - 5)
        inside = (slice(None), slice(7, 16), slice(7, 16))
        ours, theirs = y[:, channel][inside].flatten(), part[:, at][inside].flatten()
        assert torch.corrcoef(torch.stack([ours, theirs]))[0, 1] > 0.999999, channel


@pytest.mark.parametrize(
    "options", [{}, {"groups": "sector"}, {"colour": "none"}, {"blur": 3}, {"norm": "none"}]
)
def test_folded_and_mixed_channels_agree(options: Any) -> None:
    """What is computed from moduli of single packets is what the mixing of their parts gives."""
    torch.manual_seed(6)
    folded = WaveletStem(**options).double()
    with torch.no_grad():
        for weight in folded.mixing.weight:
            weight.mul_(torch.randn_like(weight))

    class Called(EnergyNorm2d):
        """A kind of its own, so the stem cannot ask it for its numbers."""

    mixed = copy.deepcopy(folded)
    if mixed.norm is not None:
        mixed.norm.__class__ = Called
    else:
        bias, mixed.bias = mixed.bias, None
        mixed.norm = nn.Identity()
        assert bias is not None
    x = torch.from_numpy(noise(2, 2, 3, 40, 33))
    results = []
    for stem in (folded, mixed):
        y = stem(x)
        y.square().sum().backward()
        grads = [weight.grad for weight in stem.mixing.weight]
        results.append([y, *grads, *stem.buffers()])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours.double(), theirs.double(), rtol=1e-9, atol=1e-9)


def test_groups() -> None:
    """Packets that are mixed, and channels, by scale, sector and number."""
    stem = WaveletStem(depth=3, out_channels=32, free_channels=0, channels_per_scale=[6, 18, 8])
    assert stem.mixing.channels == [6, 18, 8]
    assert [stem.packets.size, stem.mixing.single] == [32, True]  # others are not computed
    sectors = WaveletStem(depth=3, out_channels=64, free_channels=0, groups="sector").mixing
    atoms = PacketBank(3).atoms()
    for group in sectors.groups:
        own = atoms[list(group.packets)]
        assert len(set(own["sign"])) == 1
        first = (1, 2, 4)[group.scale]
        assert len({(row >= first, col >= first) for row, col in own[["row", "col"]]}) == 1
    octaves = WaveletStem(free_channels=0, groups="octave").mixing
    assert [len(group.packets) for group in octaves.groups] == [6, 10]
    assert octaves.channels == [24, 40]
    explicit = WaveletStem(out_channels=5, free_channels=0, groups=[([9, 6], 2), ([1], 3)])
    assert explicit.packets.tolist() == [1, 9, 6]  # from low to high
    rank1 = WaveletStem(out_channels=6, free_channels=0, groups="octave", colour="rank1")
    for row in rank1.mixing.matrix().detach().reshape(6, 3, 16):
        assert torch.linalg.matrix_rank(row) == 1


def test_penalty() -> None:
    stem = WaveletStem(out_channels=6, free_channels=0, groups="octave")
    with torch.no_grad():
        for weight in stem.mixing.weight:
            weight.zero_()
            weight[..., 0] = -3
    assert stem.penalty() == 0
    with torch.no_grad():
        stem.mixing.weight[0][0, 0] = torch.tensor([1.0, -2, 0, 0, 0, 1])
        stem.mixing.weight[1][0, 0] = 0  # a channel without weights neither gains nor loses
    penalty = stem.penalty()
    assert penalty == 1
    assert stem.penalty([0.25, 5]) == 0.25
    torch.autograd.backward(penalty)
    grad = stem.mixing.weight[0].grad
    assert grad is not None
    assert torch.allclose(grad[0, 0], torch.tensor([0.5, 0.5, 0, 0, 0, 0.5]))
    assert torch.allclose(stem.gradient_norms(), torch.tensor([0.5, 0.0]))


@pytest.mark.parametrize("colour", COLOURS)
def test_one_packet_is_not_penalised_whatever_its_colours(colour: str) -> None:
    stem = WaveletStem(free_channels=0, groups="octave", colour=colour)
    with torch.no_grad():
        for weight, group in zip(stem.mixing.weight, stem.mixing.groups, strict=True):
            weight.zero_()
            weight[..., :: len(group.packets)] = torch.randn(())
    assert stem.penalty().abs() < 1e-5
    assert WaveletStem(colour=colour).penalty().abs() < 1e-5


def test_luma_is_the_start_of_a_mix() -> None:
    x = torch.rand(2, 3, 20, 20)
    weights = torch.tensor([0.299, 0.587, 0.114])
    expected = torch.einsum("nchw,c->nhw", x, weights)[:, None]
    assert ColourMix(3, (1, 2, 3)).weight.tolist() == [1, 2, 3]  # type: ignore[union-attr]
    for colour in ("luma", "mix"):
        assert torch.allclose(ColourMix(3, colour)(x), expected, atol=1e-6)
    assert not list(ColourMix(3, "luma").parameters())
    assert not ColourMix(3, "luma").state_dict()
    assert len(list(ColourMix(3, "mix").parameters())) == 1
    assert torch.equal(ColourMix(5, "none")(x), x)
    assert torch.equal(ColourMix(1, "luma")(x[:, :1]), x[:, :1])
    assert torch.allclose(ColourMix(4, "mix")(x.repeat(1, 2, 1, 1)[:, :4]).shape and x, x)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("colour", COLOURS)
def test_gradients(operator: str, colour: str) -> None:
    torch.manual_seed(2)
    stem = WaveletStem(3, 4, 2, operator, 2, colour=colour, kernel_size=3, mode="periodic").double()
    x = torch.from_numpy(noise(3, 2, 3, 9, 8)).requires_grad_()
    names, values = zip(*stem.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Any:
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(stem, parameters, (x,))

    assert gradcheck(run, (x, *values), fast_mode=True)
    stem(x).square().sum().backward()
    for name, value in stem.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().max() > 0, name


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("free", [0, 3])
@pytest.mark.parametrize("options", [{}, {"groups": "octave"}, {"norm": "none"}, {"blur": 3}])
def test_what_follows_may_work_in_place(operator: str, free: int, options: Any) -> None:
    torch.manual_seed(7)
    stem = WaveletStem(3, 8, operator=operator, free_channels=free, **options)
    x = torch.rand(2, 3, 24, 20)
    grads = []
    for inplace in (False, True):
        stem.zero_grad()
        stem.train()
        out = nn.Sequential(stem, nn.Hardtanh(0.2, 1.5, inplace=inplace))(x)
        out.square().sum().backward()
        grads.append([p.grad.clone() for p in stem.parameters() if p.grad is not None])
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other)


@pytest.mark.parametrize("operator", OPERATORS)
def test_any_norm_in_half_precision(operator: str) -> None:
    x = torch.rand(2, 3, 32, 32)
    for norm in ("energy", "batch", lambda channels: nn.GroupNorm(2, channels)):
        stem = WaveletStem(operator=operator, norm=norm, groups="sector").eval()
        expected = stem(x)
        out = stem.bfloat16()(x.bfloat16())
        assert out.dtype == torch.bfloat16
        assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("operator", OPERATORS)
def test_one_image_without_a_batch(operator: str) -> None:
    for options in ({}, {"blur": 3}, {"learn_filters": True}):
        stem = WaveletStem(operator=operator, **options).eval()
        x = torch.rand(3, 40, 33)
        assert torch.equal(stem(x), stem(x[None])[0])


@pytest.mark.parametrize("operator", OPERATORS)
def test_copies_and_state(operator: str) -> None:
    stem = WaveletStem(operator=operator, colour="mix").eval()
    x = torch.rand(1, 3, 50, 40)
    expected = stem(x)
    for twin in (copy.deepcopy(stem), pickle.loads(pickle.dumps(stem))):
        assert torch.equal(twin(x), expected)
    other = WaveletStem(operator=operator, colour="mix").eval()
    assert not torch.equal(other(x), expected)
    other.load_state_dict(stem.state_dict())
    assert torch.equal(other(x), expected)
    learned = {name.split(".")[0] for name in stem.state_dict()}
    assert learned == {"colour_mix", "mixing", "norm", "free"}
    assert torch.allclose(
        stem(x.to(memory_format=torch.channels_last)), expected, rtol=0, atol=1e-5
    )
    assert torch.allclose(stem.double()(x.double()).float(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(operator: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    stem = WaveletStem(operator=operator)
    x = torch.rand(2, 3, 64, 48)
    expected = stem(x)
    with torch.autocast("cpu", dtype):
        y = stem(x)
        y.float().square().mean().backward()
    assert relative_error(y.float().detach(), expected.detach()) < 1e-2
    assert all(torch.isfinite(p.grad).all() for p in stem.parameters() if p.grad is not None)
    whole = stem.to(dtype)(x.to(dtype))
    assert whole.dtype == dtype
    assert relative_error(whole.float().detach(), expected.detach()) < 3e-2
    # Values whose squares float16 cannot hold.
    with torch.autocast("cpu", dtype):
        assert torch.isfinite(stem.float()(300 * x)).all()


def test_the_stem_moves_less_than_a_convolution() -> None:
    """Relative squared change of a channel when a photograph moves by one pixel, on average."""
    torch.manual_seed(4)
    x = photographs(97, 12)
    before, after = x[:, :, :96, :96], x[:, :, :96, 1:]

    def change(module: nn.Module, channels: int = 64) -> float:
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = None  # the statistics of these images, and no others
        with torch.no_grad():
            module.train()(before)
            module.eval()
            a, b = (module(z)[:, :channels, 5:-5, 5:-5] for z in (before, after))
        return float(((a - b).square().sum((0, 2, 3)) / a.square().sum((0, 2, 3))).mean())

    wavelet = change(WaveletStem(free_channels=40), 24)
    alone = change(WaveletStem(free_channels=0))
    assert max(wavelet, alone) < change(WaveletStem(operator="rmax", free_channels=0)) / 3
    # Random kernels answer to brightness most, which hardly changes over a pixel.
    assert max(wavelet, alone) < min(change(conv_stem()) for _ in range(3))


def test_cost() -> None:
    """Fewer parameters and products than what it replaces, counted one by one."""
    for depth, kernel_size, pool_padding in ((2, 7, 1), (3, 11, 0)):
        padding = 3 if depth == 2 else 2
        stem = WaveletStem(
            depth=depth, kernel_size=kernel_size, padding=padding, pool_padding=pool_padding
        )
        conv = conv_stem(kernel_size, 2 ** (depth - 1), padding, pool_padding)
        weight = conv.get_parameter("0.weight")
        assert sum(p.numel() for p in stem.parameters()) < weight.numel()
        across = (224 + 2 * padding - kernel_size) // 2 ** (depth - 1) + 1
        assert stem.macs((224, 224)) < weight.numel() * across**2
    stem = WaveletStem(free_channels=0)
    # Single packets: a product for each channel and pixel, of moduli.
    assert stem.macs((224, 224)) == stem.analysis.macs((224, 224), (56, 56)) + 64 * 56**2
    mixed = WaveletStem(free_channels=0, groups="octave")
    products = 2 * (24 * 6 + 40 * 10) * 56**2
    assert mixed.macs((224, 224)) == mixed.analysis.macs((224, 224), (56, 56)) + products


# Several processes ------------------------------------------------------------------------------


def _step(rank: int, folder: str, world: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world
    )
    try:
        model = torch.load(f"{folder}/model.pt", weights_only=False)
        x = torch.load(f"{folder}/images.pt").chunk(world)[rank]
        parallel = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(parallel.parameters(), 0.1)
        parallel(x).square().mean().backward()
        optimizer.step()
        if rank == 0:
            torch.save(model.state_dict(), f"{folder}/after.pt")
        # Who leaves while the other still talks takes it down with it.
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()
    os._exit(0)  # at an ordinary exit threads of gloo's may be in the middle of something


def test_a_step_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    stem = WaveletStem(3, 8, free_channels=0, colour="mix", sync=True)
    model = nn.Sequential(stem, nn.Conv2d(8, 4, 3)).double()
    x = torch.from_numpy(noise(6, 4, 3, 32, 32))
    torch.save(model, tmp_path / "model.pt")
    torch.save(x, tmp_path / "images.pt")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    spawn(_step, (str(tmp_path), 2), nprocs=2)  # type: ignore[no-untyped-call]
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(x).square().mean().backward()
    optimizer.step()
    after = torch.load(tmp_path / "after.pt")
    for name, value in model.state_dict().items():
        assert torch.allclose(after[name].double(), value.double(), rtol=0, atol=1e-12), name


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WaveletStem(operator="mod"), "unknown operator 'mod'; known: cmod, rmax"),
        (
            lambda: WaveletStem(colour="grey"),
            "unknown colour 'grey'; known: luma, mix, rank1, none",
        ),
        (lambda: WaveletStem(4), 'colour "luma" is for 3 channels'),
        (lambda: WaveletStem(colour=(1.0, 2.0)), "colour must be .* or 3 finite numbers, got"),
        (lambda: WaveletStem(blur="mean"), "blur must be .* 1 to 7 or .adaptive., got 'mean'"),
        (lambda: WaveletStem(norm="layer"), "unknown norm 'layer'; known: energy, batch, none"),
        (lambda: WaveletStem(groups="scale"), "groups must be .packet., .*, got 'scale'"),
        (lambda: WaveletStem(groups=[([1], 3)]), "as many channels .* 24, got 3"),
        (lambda: WaveletStem(groups=[([1], 12), ([1], 12)]), "packets must not repeat"),
        (lambda: WaveletStem(channels_per_scale=[9, 9]), "2 integers .* sum 24, got .9, 9"),
        (lambda: WaveletStem().penalty([1.0]), "one number for each of 2 scales, got 1"),
        (lambda: WaveletStem(free_channels=64), "free_channels must be .* from 0 to .* = 63"),
        (lambda: WaveletStem(packets=[40]), "packets must be"),
        (lambda: WaveletStem(depth=6), "depth of a stem must be at most 5, got 6"),
        (lambda: WaveletStem(padding=-1), "padding must be an integer of at least 0, got -1"),
        (lambda: WaveletStem(pool_padding=2), "pool_padding must be an integer from 0 to 1, got 2"),
        (
            lambda: WaveletStem(kernel_size=11, padding=0)(torch.zeros(1, 3, 8, 8)),
            r"x must be larger than \(8, 8\) pixels",
        ),
        (lambda: WaveletStem(depth=1), 'no "gabor" packets at depth 1'),
        (lambda: WaveletStem()(torch.zeros(1, 4, 8, 8)), r"or \(3, H, W\), got \(1, 4"),
        (lambda: WaveletStem()(torch.zeros(1, 3, 3, 8)), r"at least .* 4 pixels, got \(3, 8\)"),
    ],
)
def test_errors(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("free", [0, 40])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating-point numbers, got torch.uint8"),
        (np.zeros((1, 3, 8, 8)), "floating-point numbers, got ndarray"),
        (torch.zeros(1, 3, 8, 8).double(), "x is torch.float64 and the module torch.float32"),
    ],
)
def test_errors_of_dtype(x: Any, message: str, free: int) -> None:
    with pytest.raises(TypeError, match=message):
        WaveletStem(free_channels=free)(x)


def test_a_bank_of_another_wavelet() -> None:
    stem = WaveletStem(wavelet="qshift_a", mode="zero", free_channels=0)
    assert stem.resulting_kernel().shape[-1] == dtwpt.PacketBank(2, "qshift_a").filters.shape[1]

"""The modules: equal to the functions, in every dtype; their gradients; what a state dict holds."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck

import dtwpt
from dtwpt.nn import (
    AdaptiveBlurPool2d,
    CMod2d,
    DTCWPT2d,
    EnergyNorm2d,
    IDTCWPT2d,
    LearnedPolyphasePool2d,
    MaxBlurPool2d,
    MixedPolyphasePool2d,
    RMax2d,
    WaveletStem,
)
from dtwpt.nn.selection import octaves
from tests.strategies import depths, modes, noise, relative_error, seeds, wavelets

CLASSES: list[Any] = [DTCWPT2d, CMod2d, RMax2d]
FUNCTIONS: dict[Any, Any] = {DTCWPT2d: dtwpt.dtcwpt2, CMod2d: dtwpt.cmod2, RMax2d: dtwpt.rmax2}


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), wavelets, modes, seeds)
@settings(max_examples=25)
def test_modules_equal_the_functions(
    height: int, width: int, depth: int, wavelet: str, mode: str, seed: int
) -> None:
    x = torch.from_numpy(noise(seed, 2, 3, height, width))
    arguments: dict[str, Any] = {"depth": depth, "wavelet": wavelet, "mode": mode}
    for module in CLASSES:
        expected = FUNCTIONS[module](x, **arguments).flatten(1, 4)
        got = module(**arguments)(x)
        assert torch.equal(got, expected), module
        assert torch.equal(module(**arguments)(x[0]), expected[0])
    c = dtwpt.dtcwpt2(x, **arguments).flatten(1, 4)
    assert torch.allclose(IDTCWPT2d(**arguments)(c, (height, width)), x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_strides(stride: int) -> None:
    x = torch.from_numpy(noise(1, 1, 2, 19, 30))
    expected = dtwpt.dtcwpt2(x, stride=stride).flatten(1, 4)
    got = DTCWPT2d(stride=stride).double()(x)
    assert torch.allclose(got, expected, rtol=0, atol=1e-11)


@given(depths, st.data())
@settings(max_examples=15)
def test_selections_are_channels_of_the_whole(depth: int, data: st.DataObject) -> None:
    x = torch.from_numpy(noise(depth, 2, 3, 23, 17))
    total = 2 * 4**depth
    index = data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=9, unique=True))
    for module in CLASSES:
        whole = module(depth).double()(x).unflatten(1, (3, total))
        chosen = module(depth, packets=index).double()(x).unflatten(1, (3, len(index)))
        assert torch.allclose(chosen, whole[:, :, index], rtol=0, atol=1e-11)
    atoms = dtwpt.PacketBank(depth).atoms()
    if depth > 1:
        gabor = np.flatnonzero(~atoms["lowpass"] & ~atoms["boundary"])
        assert CMod2d(depth, packets="gabor")(x.float()).shape[1] == 3 * gabor.size


def test_the_inverse_takes_what_is_missing_for_zero() -> None:
    x = torch.from_numpy(noise(2, 1, 3, 32, 40))
    index = [9, 3, 20]
    c = DTCWPT2d().double()(x).unflatten(1, (3, 32))
    alone = torch.zeros_like(c)
    alone[:, :, index] = c[:, :, index]
    expected = IDTCWPT2d()(alone.flatten(1, 2))
    got = IDTCWPT2d(packets=index)(c[:, :, index].flatten(1, 2))
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)


def test_scales_are_octaves_and_part_the_packets() -> None:
    bank = dtwpt.PacketBank(3)
    atoms = bank.atoms()
    parts = octaves(np.arange(len(atoms)), bank)
    assert sorted(np.concatenate(parts)) == list(range(len(atoms)))
    larger = [np.unique(np.maximum(atoms["row"], atoms["col"])[part]).tolist() for part in parts]
    assert larger == [[0], [1], [2, 3], [4, 5, 6, 7]]


# dtypes and devices -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("module", CLASSES)
def test_autocast_leaves_the_transform_accurate(module: Any, dtype: torch.dtype) -> None:
    x = (
        torch.from_numpy(noise(3, 2, 3, 40, 50)) + 3
    )  # a mean that rounded filters would let through
    expected = FUNCTIONS[module](x).flatten(1, 4)
    with torch.autocast("cpu", dtype):
        got = module()(x.float())
    error = (got - expected).abs().square().sum((0, 2, 3)) / expected.abs().square().sum((0, 2, 3))
    assert error.sqrt().max() < 1e-4  # in every channel, far below what is asked for


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_modules_in_half_precision(dtype: torch.dtype) -> None:
    x = torch.from_numpy(noise(4, 2, 3, 40, 50)).to(dtype)
    for module in (CMod2d, RMax2d):
        got = module().to(dtype)(x)
        assert got.dtype == dtype
        assert relative_error(got.double(), FUNCTIONS[module](x.double()).flatten(1, 4)) < 4e-3


def test_conversions_never_lose_digits_of_the_filters() -> None:
    x = torch.from_numpy(noise(5, 1, 3, 30, 30))
    expected = CMod2d().double()(x)
    tossed_about = CMod2d().half().bfloat16().float().double()
    assert torch.equal(tossed_about(x), expected)


@pytest.mark.parametrize(
    "make",
    [
        CMod2d,
        lambda: CMod2d(packets="gabor"),
        lambda: RMax2d(packets=[3, 9]),
        MaxBlurPool2d,
        lambda: WaveletStem(colour="mix"),
        lambda: WaveletStem(operator="rmax"),
        lambda: WaveletStem(norm="none"),
        lambda: WaveletStem(groups="octave", colour="rank1", learn_filters=True, blur="adaptive"),
        lambda: LearnedPolyphasePool2d(3),
        lambda: MixedPolyphasePool2d(3),
        lambda: AdaptiveBlurPool2d(3, groups=3),
    ],
)
def test_made_without_memory(make: Any) -> None:
    """Constants are there again once there is memory, and the rest can be set or loaded."""
    x = torch.rand(1, 3, 40, 40)
    original = make().eval()
    with torch.device("meta"):
        twin = make()
    assert all(tensor.is_meta for tensor in [*twin.parameters(), *twin.buffers()])
    for module in twin.eval().modules():  # as FSDP does it, one by one
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if own:
            module.to_empty(device="cpu", recurse=False)
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor.data.fill_(torch.nan if tensor.is_floating_point() else 99)
            module.reset_parameters()
    assert twin(x).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in twin.buffers())
    twin.load_state_dict(original.state_dict())
    assert torch.equal(twin(x), original(x))


@pytest.mark.parametrize("module", [*CLASSES, IDTCWPT2d])
def test_copies_and_state(module: Any) -> None:
    original = module(packets="gabor")
    assert not original.state_dict()
    assert not list(original.parameters())
    x: Tensor = torch.from_numpy(noise(6, 1, 3, 20, 20)).float()
    if module is IDTCWPT2d:
        x = DTCWPT2d(packets="gabor")(x)
    for twin in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert torch.equal(twin(x), original(x))
    assert "qshift_b" in repr(original)
    assert "gabor (16 of 32)" in repr(original)


def test_integers_and_memory_formats() -> None:
    x = torch.randint(0, 256, (2, 3, 33, 20), dtype=torch.uint8)
    assert torch.allclose(CMod2d()(x), dtwpt.cmod2(x).flatten(1, 4), atol=1e-6)
    z = torch.rand(2, 3, 33, 20)
    last = z.to(memory_format=torch.channels_last)
    assert torch.allclose(CMod2d()(last), CMod2d()(z), atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("module", CLASSES)
def test_gpu(module: Any) -> None:
    x = torch.rand(2, 3, 97, 130)
    for mode in ("symmetric", "zero", "periodic"):
        there = module(mode=mode).cuda()(x.cuda()).cpu()
        assert torch.allclose(there, module(mode=mode)(x), rtol=0, atol=1e-4)


# Gradients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", CLASSES)
def test_gradients(module: Any) -> None:
    x = torch.from_numpy(noise(7, 1, 2, 7, 6)).requires_grad_()
    # The largest of two equal values has no derivative: such are not met here, but in mode
    # "symmetric" they are, where the border is mirrored.
    operator = module(mode="periodic").double()
    assert gradcheck(operator, (x,), fast_mode=True)
    ours = torch.autograd.grad(operator(x).abs().square().sum(), x)[0]
    expected = FUNCTIONS[module](x, mode="periodic").abs().square().sum()
    assert torch.allclose(ours, torch.autograd.grad(expected, x)[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("module", [CMod2d, RMax2d])
def test_what_follows_may_work_in_place(module: Any) -> None:
    grads = []
    for inplace in (False, True):
        x = torch.from_numpy(noise(8, 1, 2, 16, 16)).requires_grad_()
        nn.Sequential(module(), nn.Hardtanh(0.1, 0.8, inplace=inplace))(x).square().sum().backward()
        grads.append(x.grad)
    assert grads[0] is not None
    assert torch.equal(grads[0], grads[1])  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")  # torch announces the end of its traces
def test_a_trace_of_the_inverse_can_be_saved() -> None:
    inverse, c = IDTCWPT2d(), DTCWPT2d()(torch.from_numpy(noise(9, 1, 1, 24, 16)))
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(inverse, c), file)  # type: ignore[no-untyped-call]
    file.seek(0)
    loaded = torch.jit.load(file)  # type: ignore[no-untyped-call]
    assert torch.equal(loaded(2 * c), inverse(2 * c))


def test_gradient_of_the_inverse() -> None:
    c = torch.from_numpy(noise(8, 1, 32, 2, 3) + 1j * noise(9, 1, 32, 2, 3)).requires_grad_()
    assert gradcheck(IDTCWPT2d(), (c,), fast_mode=True)


# torch's own remark, on what it differentiates forwards with.
@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
def test_the_modulus_of_nothing_has_derivative_zero() -> None:
    x = torch.zeros(1, 1, 16, 16, requires_grad=True)
    CMod2d()(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))
    x = torch.zeros(1, 1, 16, 16)
    tangent = torch.func.jvp(CMod2d(), (x,), (torch.ones_like(x),))[1]
    assert torch.isfinite(tangent).all()


# Normalisation ----------------------------------------------------------------------------------


def test_energy_norm() -> None:
    norm = EnergyNorm2d(3, momentum=0.25).double()
    x = (
        torch.from_numpy(np.abs(noise(10, 4, 3, 8, 8)))
        * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    )
    energy = x.square().mean((0, 2, 3)) / 2
    y = norm(x)
    assert torch.allclose(y, x / (energy + 1e-5).sqrt()[:, None, None])
    assert norm.running_energy is not None
    assert torch.allclose(norm.running_energy, 0.75 + 0.25 * energy)
    norm.eval()
    with torch.no_grad():
        norm.get_parameter("weight").fill_(-2)  # its sign does not count
        norm.get_parameter("bias").fill_(3)
    expected = 2 * x / (norm.running_energy + 1e-5).sqrt()[:, None, None] + 3
    assert torch.allclose(norm(x), expected)
    assert set(norm.state_dict()) == {
        "stats." + name
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    average = EnergyNorm2d(3, momentum=None, affine=False).double()
    average(x)
    average(2 * x)
    assert average.running_energy is not None
    assert torch.allclose(average.running_energy, 2.5 * energy)


def test_no_images() -> None:
    norm = EnergyNorm2d(3)
    norm(torch.zeros(0, 3, 4, 4))
    assert norm.running_energy is not None
    assert torch.isfinite(norm.running_energy).all()
    assert CMod2d()(torch.zeros(0, 3, 16, 16)).shape == (0, 96, 4, 4)
    for operator in ("cmod", "rmax"):
        stem = WaveletStem(operator=operator).eval()
        assert stem(torch.zeros(0, 3, 16, 16)).shape == (0, 64, 4, 4)


def test_energy_norm_is_batch_norm_of_the_real_part() -> None:
    z = torch.from_numpy(noise(11, 8, 2, 64, 64) + 1j * noise(12, 8, 2, 64, 64))
    through = EnergyNorm2d(2).double()(z.abs()) / z.abs()
    through_real = nn.BatchNorm2d(2).double()(z.real) / z.real
    assert torch.allclose(through[0, :, 0, 0], through_real.flatten(2).median(2)[0][0], rtol=0.02)


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CMod2d(0), ValueError, "depth must be an integer from 1 to 10, got 0"),
        (lambda: CMod2d(packets="Gabor"), ValueError, 'packets must be "all", "gabor" or indices'),
        (lambda: CMod2d(packets=[32]), ValueError, "packets must be .* from 0 to 31, got"),
        (lambda: CMod2d(packets=[-1]), ValueError, "packets must be .* from 0 to 31, got"),
        (lambda: CMod2d(packets=[1, 1]), ValueError, "packets must not repeat"),
        (lambda: CMod2d(packets=[]), ValueError, "got none"),
        (lambda: CMod2d(packets=[0.5]), TypeError, "packets must be"),  # type: ignore[list-item]
        (lambda: CMod2d(packets=3), TypeError, "packets must be"),  # type: ignore[arg-type]
        (lambda: CMod2d(1, packets="gabor"), ValueError, 'no "gabor" packets at depth 1'),
        (lambda: RMax2d(pool=2), ValueError, "pool must be an odd integer"),
        (lambda: DTCWPT2d(stride=3), ValueError, "stride must be a power of two"),
        (lambda: CMod2d()(torch.zeros(8, 8)), ValueError, r"or \(C, H, W\), got \(8, 8"),
        (lambda: CMod2d()(np.zeros((1, 1, 8, 8))), TypeError, "x must be a torch.Tensor"),
        (lambda: CMod2d()(torch.zeros(1, 1, 0, 8)), ValueError, "must not be empty"),
        (lambda: CMod2d()(torch.zeros(1, 1, 8, 8) * 1j), TypeError, "complex64"),
        (lambda: IDTCWPT2d()(torch.zeros(1, 32, 8, 8)), TypeError, "c must be a complex tensor"),
        (lambda: IDTCWPT2d()(torch.zeros(1, 31, 8, 8) * 1j), ValueError, r"\(N, C \* 32, H', W'\)"),
        (lambda: IDTCWPT2d()(torch.zeros(1, 32, 8, 8) * 1j, (5, 5)), ValueError, "from 29 to 32"),
        (lambda: EnergyNorm2d(3)(torch.zeros(1, 2, 8, 8)), ValueError, r"shape \(N, 3, H, W\) or"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()

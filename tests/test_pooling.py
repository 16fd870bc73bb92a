"""Poolings: their definitions as loops, equalities, exactness, what torch asks of modules."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn import functional

import dtwpt
from dtwpt.nn.pooling import (
    AdaptiveBlurPool2d,
    BlurPool2d,
    LearnedPolyphasePool2d,
    MixedPolyphasePool2d,
    PolyphasePool2d,
    PolyphaseUpsample2d,
    SpectralPool2d,
    WaveletPool2d,
    anchor,
    anneal,
    tips_loss,
)
from dtwpt.nn.pooling.low_pass import LOW_PASSES, low_pass
from tests.strategies import noise, seeds

Array = NDArray[np.float64]
CHANNELS = 4

# Of every kind, for CHANNELS channels, with a stride.
POOLS: dict[str, Callable[[int], nn.Module]] = {
    "blur": BlurPool2d,
    "aps": PolyphasePool2d,
    "aps blurred": lambda s: PolyphasePool2d(s, "l1", blur=3, select_on="after"),
    "lps": lambda s: LearnedPolyphasePool2d(CHANNELS, s, hidden=3),
    "tips": lambda s: MixedPolyphasePool2d(CHANNELS, s),
    "adaptive": lambda s: AdaptiveBlurPool2d(CHANNELS, s, groups=2),
    "spectral": SpectralPool2d,
    "asap": lambda s: SpectralPool2d(s, window="hamming"),
    "wavelet": lambda s: WaveletPool2d("db2", s),
    "dual tree": lambda s: WaveletPool2d("qshift_a", s),
}
EXACT = ("aps", "aps blurred", "lps")
MODES = {
    "symmetric": "symmetric",
    "reflect": "reflect",
    "replicate": "edge",
    "periodic": "wrap",
    "zero": "constant",
}

modes = st.sampled_from(list(MODES))
strides = st.integers(2, 4)
sides = st.integers(1, 13)


def maps(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(noise(seed, *shape))


def made(name: str, stride: int = 2, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return POOLS[name](stride).double().eval()


def filtered(x: Array, taps: Array, stride: int, mode: str) -> Array:
    """One map, each pixel a sum over its window."""
    first, last = (taps.size - 1) // 2, taps.size // 2
    padded = np.pad(x, (first, last), MODES[mode])  # type: ignore[call-overload]
    out = np.zeros([-(-side // stride) for side in x.shape])
    for i, j in np.ndindex(out.shape):
        window = padded[stride * i :, stride * j :][: taps.size, : taps.size]
        out[i, j] = taps @ window @ taps
    return out


def phases(x: Array, stride: int) -> Iterator[Array]:
    for i, j in itertools.product(range(stride), repeat=2):
        yield x[:, i::stride, j::stride]


def each(x: Tensor, run: Callable[[Array], Array]) -> Tensor:
    return torch.from_numpy(np.stack([run(image) for image in x.numpy()]))


# Definitions.


@given(seeds, sides, sides, strides, st.integers(1, 7), modes)
def test_blur_pooling(
    seed: int, height: int, width: int, stride: int, blur: int, mode: str
) -> None:
    x = maps(seed, 2, 1, height, width)
    taps = np.ones(1)
    for _ in range(blur - 1):
        taps = np.convolve(taps, [0.5, 0.5])
    expected = each(x[:, 0], lambda image: filtered(image, taps, stride, mode))[:, None]
    assert torch.allclose(BlurPool2d(stride, blur, mode)(x), expected, atol=1e-13)


@given(seeds, sides, sides, strides, st.sampled_from(LOW_PASSES), modes, st.booleans())
def test_wavelet_pooling(
    seed: int, height: int, width: int, stride: int, wavelet: str, mode: str, unit: bool
) -> None:
    x = maps(seed, 1, 1, height, width)
    taps = np.array(low_pass(wavelet)) * (1 if unit else 2**0.5)
    expected = filtered(x[0, 0].numpy(), taps, stride, mode)
    actual = WaveletPool2d(wavelet, stride, unit, mode)(x)
    assert np.allclose(actual[0, 0], expected, atol=1e-13)


NORMS: dict[str, Callable[[Array], float]] = {
    "l1": lambda p: float(np.abs(p).sum()),
    "l2": lambda p: float((p**2).sum()),
    "linf": lambda p: float(np.abs(p).max()),
    "l1min": lambda p: -float(np.abs(p).sum()),
    "l2min": lambda p: -float((p**2).sum()),
}


@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 3),
    strides,
    st.sampled_from(list(NORMS)),
    st.integers(1, 5),
    st.sampled_from(["before", "after"]),
    modes,
)
def test_polyphase_pooling(
    seed: int, rows: int, columns: int, stride: int, norm: str, blur: int, on: str, mode: str
) -> None:
    x = maps(seed, 3, 2, rows * stride, columns * stride)
    taps = np.ones(1)
    for _ in range(blur - 1):
        taps = np.convolve(taps, [0.5, 0.5])
    pool = PolyphasePool2d(stride, norm, blur, on, mode)
    # A function of phases that computes the norm is that norm.
    own = PolyphasePool2d(
        stride,
        lambda p: torch.tensor(
            [[NORMS[norm](phase) for phase in image] for image in p.numpy()], dtype=p.dtype
        ),
        blur,
        on,
        mode,
    )
    for image, *outputs in zip(x.numpy(), pool(x).numpy(), own(x).numpy(), strict=True):
        smooth = np.stack([filtered(part, taps, 1, mode) for part in image])
        scores = [NORMS[norm](p) for p in phases(image if on == "before" else smooth, stride)]
        # Mirrored borders give phases of equal norms.
        best = [
            phase
            for phase, score in zip(phases(smooth, stride), scores, strict=True)
            if score > max(scores) - 1e-9
        ]
        for output in outputs:
            assert any(np.allclose(output, phase, atol=1e-13) for phase in best)


@given(seeds, st.integers(1, 3), st.integers(1, 3), strides, st.booleans())
def test_learned_polyphase_pooling(
    seed: int, rows: int, columns: int, stride: int, training: bool
) -> None:
    torch.manual_seed(seed)
    pool = LearnedPolyphasePool2d(2, stride, hidden=3, temperature=0.7, noise=False).double()
    x = maps(seed, 3, 2, rows * stride, columns * stride)
    score_: Any = pool.score
    convs = [score_.conv1, score_.conv2]

    def score(phase: Array) -> float:
        for number, conv in enumerate(convs):
            wrapped = np.pad(phase, ((0, 0), (1, 1), (1, 1)), "wrap")
            result = functional.conv2d(torch.from_numpy(wrapped), conv.weight, conv.bias)
            phase = (result.relu() if number == 0 else result).detach().numpy()
        return float(phase.mean())

    def run(image: Array) -> Array:
        parts = list(phases(image, stride))
        scores = np.array([score(part) for part in parts])
        if not training:
            return parts[int(scores.argmax())]
        weights = np.exp((scores - scores.max()) / 0.7)
        mixed: Array = np.tensordot(weights / weights.sum(), np.stack(parts), 1)
        return mixed

    assert torch.allclose(pool.train(training)(x), each(x, run), atol=1e-12)


@given(seeds, sides, sides, strides)
def test_mixed_polyphase_pooling(seed: int, height: int, width: int, stride: int) -> None:
    pool = made("tips", stride, seed)
    x = maps(seed, 2, CHANNELS, height, width)
    weight = pool.conv.weight.detach().numpy()[:, 0]
    scale = pool.scale.weight.detach().numpy().ravel()

    def run(image: Array) -> Array:
        after = [(0, 0), (0, -height % stride), (0, -width % stride)]
        image = np.pad(image, after, "reflect")
        out = []
        for channel, kernel, number in zip(image, weight, scale, strict=True):
            ringed = np.pad(channel, 1)
            psi = np.zeros_like(channel)
            for i, j in np.ndindex(psi.shape):
                psi[i, j] = max((ringed[i : i + 3, j : j + 3] * kernel).sum(), 0)
            rows, columns = psi.shape[0] // stride, psi.shape[1] // stride
            logits, parts = [], []
            for a, b in itertools.product(range(stride), repeat=2):
                part = psi[a * rows : (a + 1) * rows, b * columns : (b + 1) * columns]
                logits.append(number * part.mean())
                parts.append(channel[b::stride, a::stride])
            weights = np.exp(logits) / np.exp(logits).sum()
            out.append(np.tensordot(weights, np.stack(parts), 1))
        return np.stack(out)

    assert torch.allclose(pool(x), each(x, run), atol=1e-12)


@settings(max_examples=15)
@given(seeds, st.integers(1, 7), st.integers(1, 7), strides, st.sampled_from([3, 5]), modes)
def test_adaptive_blur_pooling(
    seed: int, height: int, width: int, stride: int, kernel: int, mode: str
) -> None:
    torch.manual_seed(seed)
    pool: Any = AdaptiveBlurPool2d(CHANNELS, stride, kernel, groups=2, mode=mode).double().eval()
    pool.norm.running_mean.normal_()
    x = maps(seed, 1, CHANNELS, height, width)
    reach = kernel // 2
    padded = np.pad(x[0].numpy(), [(0, 0), (reach, reach), (reach, reach)], MODES[mode])  # type: ignore[call-overload]
    out = np.zeros((CHANNELS, -(-height // stride), -(-width // stride)))
    weight = pool.conv.weight.detach().numpy()
    mean, spread = pool.norm.running_mean.numpy(), (1 + pool.norm.eps) ** 0.5
    for _, i, j in np.ndindex(1, *out.shape[1:]):
        window = padded[:, stride * i :, stride * j :][:, :kernel, :kernel]
        logits = (np.tensordot(weight, window, 3) - mean) / spread
        for channel in range(CHANNELS):
            own = logits.reshape(2, -1)[channel // (CHANNELS // 2)]
            filter_ = np.exp(own) / np.exp(own).sum()
            out[channel, i, j] = filter_ @ window[channel].ravel()
    assert np.allclose(pool(x)[0].detach(), out, atol=1e-12)


@given(seeds, sides, sides, strides, st.booleans())
def test_spectral_pooling(seed: int, height: int, width: int, stride: int, window: bool) -> None:
    """The trigonometric interpolation of the low frequencies, sampled."""
    x = maps(seed, 1, 1, height, width)
    spectrum = np.fft.fft2(x[0, 0].numpy()) / (height * width)
    out = np.zeros((-(-height // stride), -(-width // stride)), dtype=complex)
    for f, g in itertools.product(range(-height, height), range(-width, width)):
        if abs(f) * 2 * stride < height and abs(g) * 2 * stride < width:
            weight = 1.0
            for frequency, side in ((f, height), (g, width)) if window else ():
                weight *= (0.54 + 0.46 * np.cos(2 * np.pi * frequency / side)) ** 0.5
            rows, columns = (
                np.exp(2j * np.pi * frequency * np.arange(count) / count)
                for frequency, count in zip((f, g), out.shape, strict=True)
            )
            out += weight * spectrum[f, g] * np.outer(rows, columns)
    actual = SpectralPool2d(stride, window="hamming" if window else None)(x)
    assert np.abs(out.imag).max() < 1e-12
    assert np.allclose(actual[0, 0], out.real, atol=1e-12)


@given(seeds, st.integers(1, 3), strides, st.booleans())
def test_upsampling(seed: int, side: int, stride: int, soft: bool) -> None:
    x = maps(seed, 2, 3, side, side + 1)
    count = stride**2
    phase = maps(seed, 2, count).softmax(1) if soft else torch.tensor([seed % count, count - 1])
    expected = np.zeros((2, 3, side * stride, (side + 1) * stride))
    for n in range(2):
        for k, (i, j) in enumerate(itertools.product(range(stride), repeat=2)):
            weight = float(phase[n, k]) if soft else float(phase[n] == k)
            expected[n, :, i::stride, j::stride] = weight * x[n].numpy()
    assert np.allclose(PolyphaseUpsample2d(stride)(x, phase), expected, atol=1e-14)


# Equalities.


def test_low_passes_are_wavelets() -> None:
    for name in LOW_PASSES:
        taps = np.array(low_pass(name))
        assert taps.sum() == pytest.approx(1, abs=1e-12)
        polynomial, zeros = np.poly1d(taps), 0
        while abs(polynomial(-1)) < 1e-6:
            polynomial, zeros = np.polydiv(polynomial, [1, 1])[0], zeros + 1
            polynomial = np.poly1d(polynomial)
        if name.startswith("db") or name == "haar":
            order = 1 if name == "haar" else int(name[2])
            assert (taps.size, zeros) == (2 * order, order)
            products = np.correlate(taps, taps, "full")[(taps.size - 1) % 2 :: 2] * 2
            assert np.allclose(products, np.arange(products.size) == products.size // 2)
            assert np.argmax(abs(taps)) < order  # extremal phase: energy comes first
        elif name.startswith("bior"):
            assert zeros == {"bior2.2": 2, "bior3.3": 3, "bior4.4": 4, "bior5.5": 6}[name]
            assert np.allclose(taps, taps[::-1])
    # The reconstruction filters of the JPEG 2000 pair and of its neighbour, as published.
    published = [-0.0645388826, -0.0406894176, 0.4180922732, 0.7884856164]
    assert np.allclose(np.array(low_pass("bior4.4")[:4]) * 2**0.5, published, atol=1e-9)
    published = [0.0134567095, -0.0026949669, -0.1367065847, -0.0935046974, 0.4768032658]
    assert np.allclose(np.array(low_pass("bior5.5")[:5]) * 2**0.5, published, atol=1e-9)
    # The mean of both trees' filters, which lie one pixel apart.
    low = dtwpt.Wavelet("qshift_a").low[0]
    mean = np.trim_zeros(np.convolve(low, [1, 1]))
    assert np.allclose(low_pass("qshift_a"), mean / mean.sum(), atol=1e-9)


def test_some_poolings_are_others() -> None:
    x = maps(1, 2, CHANNELS, 12, 8)
    striding = x[:, :, ::2, ::2]
    assert torch.equal(BlurPool2d(blur=1)(x), striding)
    assert torch.equal(WaveletPool2d([1.0])(x), striding)
    average = functional.avg_pool2d(x, 2)
    assert torch.allclose(WaveletPool2d("haar")(x), average)
    tips = made("tips")
    nn.init.zeros_(tips.conv.weight)
    assert torch.allclose(tips(x), average)
    for taps, name in ((2, "haar"), (3, "bior2.2"), (4, "bior3.3")):
        twice = WaveletPool2d(name, normalised=False, mode="periodic")(x)
        assert torch.allclose(twice, 2 * BlurPool2d(blur=taps, mode="periodic")(x))
    adaptive = made("adaptive")
    nn.init.zeros_(adaptive.conv.weight)
    padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
    assert torch.allclose(adaptive(x), functional.avg_pool2d(padded, 3, 1)[:, :, ::2, ::2])


class Energy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square().sum((1, 2, 3))


def test_learned_polyphase_sampling_contains_adaptive() -> None:
    x = maps(2, 5, CHANNELS, 6, 9)
    pool = LearnedPolyphasePool2d(
        CHANNELS, 3, noise=False, score=Energy(), return_phase=True
    ).eval()
    expected, phase = PolyphasePool2d(3, return_phase=True)(x)
    assert torch.equal(pool(x)[0], expected)
    assert torch.equal(pool(x)[1], phase)
    assert anneal(pool, 1e-3) == 1  # without noise, training gives what evaluation does when cold
    mixed, weights = pool.train()(x)
    assert torch.allclose(weights.sum(1), torch.ones(5).double())
    assert torch.allclose(mixed, expected, atol=1e-3)


@pytest.mark.parametrize("side", [7, 10, 14, 30])
@pytest.mark.parametrize("name", POOLS)
def test_constants_stay(name: str, side: int) -> None:
    if name in EXACT and side % 2:
        return  # refused, which test_wrong_input sees
    x = torch.full((1, CHANNELS, side, side), 0.7, dtype=torch.float64)
    y = made(name)(x)
    assert y.shape[2:] == (-(-side // 2),) * 2
    assert torch.allclose(y, torch.full_like(y, 0.7), rtol=1e-12)


def test_spectral_pooling_samples_what_it_keeps() -> None:
    for side, stride in ((14, 2), (10, 2), (30, 4), (9, 3), (15, 2)):
        count = -(-side // stride)
        for f in range((side - 1) // (2 * stride) + 1):
            rows, columns = (
                torch.cos(2 * torch.pi * f * torch.arange(n) / n + 0.3).double()
                for n in (side, count)
            )
            x = torch.cos(2 * torch.pi * f * torch.arange(side).double() / side + 0.3)
            y = torch.cos(2 * torch.pi * f * torch.arange(count).double() / count + 0.3)
            out = SpectralPool2d(stride)(x.expand(1, 1, side, side))
            assert torch.allclose(out, y.expand(1, 1, count, count), atol=1e-12)
            assert len(rows) == side
            assert len(columns) == count
    x = maps(3, 1, 2, 16, 14)
    small = SpectralPool2d(output_size=(8, 7))(x)
    assert torch.allclose(small, SpectralPool2d(2)(x), atol=1e-13)
    assert torch.allclose(small.mean((2, 3)), x.mean((2, 3)), atol=1e-14)
    low = SpectralPool2d(output_size=(16, 14))(x)
    assert torch.allclose(SpectralPool2d(output_size=(16, 14))(low), low, atol=1e-13)


# Shifts.


def moved_alike(a: Tensor, b: Tensor) -> float:
    """Return the distance of b from the circular shift of a that is nearest."""
    rolls = itertools.product(range(a.shape[2]), range(a.shape[3]))
    return min(float((b - a.roll(shift, (2, 3))).detach().abs().max()) for shift in rolls)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("name", POOLS)
def test_exact_poolings_move_with_the_image_and_others_do_not(name: str, stride: int) -> None:
    pool = made(name, stride)
    if hasattr(pool, "mode"):
        pool.mode = "periodic"
    x = maps(4, 1, CHANNELS, 3 * stride, 2 * stride)
    y = pool(x)
    worst = max(
        moved_alike(y, pool(x.roll(shift, (2, 3))))
        for shift in itertools.product(range(stride), repeat=2)
    )
    if name in EXACT:
        assert worst < 1e-14
        assert torch.equal(pool(-x), -y) or name == "lps"
    else:
        assert worst > 1e-3
    by_stride = moved_alike(y, pool(x.roll((stride, -stride), (2, 3))))
    assert by_stride < 1e-13 or name == "tips"  # whose parts of the image are fixed


def test_blur_keeps_the_mean_and_striding_does_not() -> None:
    x = maps(5, 1, 1, 12, 12)
    for pool, keeps in ((BlurPool2d(blur=2, mode="periodic"), True), (BlurPool2d(blur=1), False)):
        assert (abs(float(pool(x).mean() - x.mean())) < 1e-15) == keeps


def test_zero_borders_and_training_are_not_exact() -> None:
    x = maps(6, 1, CHANNELS, 8, 8)
    blurred = PolyphasePool2d(blur=3, mode="zero")
    assert moved_alike(blurred(x), blurred(x.roll(1, 2))) > 1e-3
    torch.manual_seed(0)
    for noisy in (False, True):  # sums of phases, of which some move and others do not
        mixing = LearnedPolyphasePool2d(CHANNELS, noise=noisy).double().train()
        assert moved_alike(mixing(x), mixing(x.roll(1, 2))) > 1e-3


def test_down_and_up_again_commutes_with_shifts() -> None:
    down, up = PolyphasePool2d(3, return_phase=True), PolyphaseUpsample2d(3, blur=3)
    x = maps(7, 2, 2, 9, 6)
    for shift in itertools.product(range(3), repeat=2):
        assert torch.equal(up(*down(x.roll(shift, (2, 3)))), up(*down(x)).roll(shift, (2, 3)))


def test_anchor() -> None:
    x = maps(8, 3, 2, 8, 12)
    anchored = anchor(x, 4)
    _, phase = PolyphasePool2d(4, return_phase=True)(x)
    for image, out, k in zip(x, anchored, phase.tolist(), strict=True):
        assert torch.equal(out, image.roll((-(k // 4), -(k % 4)), (1, 2)))
    # A strided convolution after it is exact, and is not without it.
    torch.manual_seed(0)
    patches = nn.Conv2d(2, 5, 4, 4).double()
    y, moved = (patches(anchor(image, 4)) for image in (x, x.roll((3, 6), (2, 3))))
    for a, b in zip(torch.split(y, 1), torch.split(moved, 1), strict=True):
        assert moved_alike(a, b) < 1e-14
    assert moved_alike(patches(x[:1]), patches(x[:1].roll((3, 6), (2, 3)))) > 1e-2


# Losses of the mixed polyphase pooling.


def test_tips_loss() -> None:
    model: Any = nn.Sequential(
        MixedPolyphasePool2d(3, how="roll"), MixedPolyphasePool2d(3, shift=1)
    )
    with pytest.raises(ValueError, match="has run in training mode"):
        tips_loss(model)
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    model(x)
    first, second = tips_loss(model, undo=False), tips_loss(model, alpha=0.5)
    assert 0 < first.item() < 0.5  # 0 for one phase, 1 - 1 / stride for equal weights
    assert second.item() > first.item()
    torch.autograd.backward(second)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    copy.deepcopy(model)
    pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        for layer in model:
            layer.conv.weight.zero_()
    model(x)
    assert tips_loss(model, undo=False).item() == pytest.approx(0.5)
    # psi is 0, so that the second loss is the mean square of the maps that moved round.
    for layer, means in zip(model, (x, functional.avg_pool2d(x, 2)), strict=True):
        error = layer.losses[1].item()
        square = means.square().mean().item()
        assert error == pytest.approx(square) if layer.how == "roll" else error <= square


# What torch asks of modules.


def test_parameters_are_as_many_as_documented() -> None:
    counts = {name: sum(p.numel() for p in made(name).parameters()) for name in POOLS}
    expected = {
        "lps": 9 * CHANNELS * 3 + 9 * 3**2 + 2 * 3,
        "tips": 10 * CHANNELS,
        "adaptive": 2 * 9 * (CHANNELS * 9 + 2),
    }
    assert {name: count for name, count in counts.items() if count} == expected


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", POOLS)
def test_derivatives(name: str, training: bool) -> None:
    pool = made(name).train(training)
    if name == "lps":
        pool.noise = False
    x = maps(9, 2, CHANNELS, 4, 6).requires_grad_()
    assert gradcheck(pool, x)
    for parameter in pool.parameters():
        assert parameter.requires_grad


@pytest.mark.parametrize("name", POOLS)
def test_dtypes_layouts_copies_and_state(name: str) -> None:
    pool = made(name)
    x = maps(10, 3, CHANNELS, 8, 12)
    y = pool(x)
    alone = torch.cat([pool(image) for image in torch.split(x, 1)])
    assert torch.allclose(alone, y, rtol=1e-13)  # batch independence
    last = pool(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(last, y, rtol=1e-12, atol=1e-14)
    again = made(name, seed=1)
    again.load_state_dict(pool.state_dict())
    for twin in (again, copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert torch.equal(twin(x), y)
        assert repr(twin) == repr(pool)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 0.1)):
        low = x.to(dtype)
        expected = pool(low.double())
        plain = copy.deepcopy(pool).to(dtype)(low)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = copy.deepcopy(pool).float()(low)
        for out in (plain, mixed):
            assert out.dtype == dtype
            assert torch.allclose(out.double(), expected, rtol=tolerance, atol=tolerance) or (
                name == "lps" and out is plain  # whose scores have rounded weights
            )


def test_selection_is_in_float32() -> None:
    """Two phases of which one has the larger norm by less than bfloat16 can tell."""
    x = torch.ones(1, 1, 32, 32, dtype=torch.bfloat16)
    x[0, 0, 1, 1] = 1.25
    for context in (torch.autocast("cpu", torch.bfloat16), torch.no_grad()):
        with context:
            _, phase = PolyphasePool2d(return_phase=True)(x)
        assert phase.tolist() == [3]


# Warnings that torch raises about itself while it compiles and exports.
torch_warnings = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:.*LeafSpec:FutureWarning"
)


class Several(nn.Module):
    """Poolings at once, so that one graph is made."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pools = nn.ModuleList(POOLS[name](2) for name in names)
        self.down, self.up = PolyphasePool2d(return_phase=True), PolyphaseUpsample2d()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return *(pool(x) for pool in self.pools), self.up(*self.down(x)), anchor(x, 2)


@torch_warnings
@pytest.mark.parametrize("training", [False, True])
def test_compiles_in_one_graph(training: bool) -> None:
    names = ["lps", "tips", "adaptive"] if training else list(POOLS)
    model = Several(names).train(training)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=False)
    x = torch.randn(2, CHANNELS, 8, 12)
    for name, a, b in zip([*names, "up", "anchor"], compiled(x), model(x), strict=True):
        assert torch.allclose(a, b, atol=1e-6) or (name == "lps" and training)  # noise


@torch_warnings
def test_exports(tmp_path: Path) -> None:
    names = ["blur", "aps blurred", "lps", "tips", "adaptive", "spectral", "dual tree"]
    model = Several(names).eval()
    x = torch.randn(2, CHANNELS, 12, 16)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: torch.export.Dim("n")}})
    path = tmp_path / "pools.onnx"
    torch.onnx.export(program, f=path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    for count in (2, 5):
        x = torch.randn(count, CHANNELS, 12, 16)
        outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for name, actual, expected in zip([*names, "up", "anchor"], outputs, model(x), strict=True):
            assert np.allclose(actual, expected.detach(), atol=1e-5), name


# Errors.

WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: BlurPool2d(1), ValueError, "stride must be an integer of at least 2, got 1"),
    (lambda: SpectralPool2d(2.5), TypeError, "stride must be an integer"),  # type: ignore[arg-type]
    (lambda: BlurPool2d(blur=8), ValueError, "blur must be an integer from 1 to 7, got 8"),
    (lambda: BlurPool2d(mode="wrap"), ValueError, "unknown mode 'wrap'"),
    (lambda: PolyphasePool2d(select="l3"), ValueError, "select must be one of l1, l2"),
    (lambda: PolyphasePool2d(select_on="x"), ValueError, 'select_on must be "before" or "after"'),
    (lambda: LearnedPolyphasePool2d(4, temperature=0), ValueError, "temperature must be a pos"),
    (lambda: LearnedPolyphasePool2d(4, temperature="1"), TypeError, "temperature must be"),  # type: ignore[arg-type]
    (lambda: anneal(nn.Identity(), float("nan")), ValueError, "temperature must be a positive"),
    (lambda: LearnedPolyphasePool2d(0), ValueError, "channels must be an integer of at least 1"),
    (lambda: MixedPolyphasePool2d(4, how="x"), ValueError, 'how must be "fill" or "roll"'),
    (lambda: tips_loss(nn.Identity(), alpha=2), ValueError, "alpha must be from 0 to 1, got 2"),
    (lambda: AdaptiveBlurPool2d(4, groups=3), ValueError, "groups=3 does not divide channels=4"),
    (lambda: AdaptiveBlurPool2d(4, kernel=2), ValueError, "odd integer"),
    (lambda: SpectralPool2d(window="hann"), ValueError, 'window must be None or "hamming"'),
    (lambda: WaveletPool2d("db9"), ValueError, "unknown wavelet 'db9'; known wavelets: haar"),
    (lambda: WaveletPool2d([]), ValueError, "at least one tap"),
    (lambda: WaveletPool2d(3), TypeError, "a name or a sequence of taps"),  # type: ignore[arg-type]
    (lambda: anchor(torch.rand(1, 1, 6, 8), 4), ValueError, "must be multiples of 4"),
    (
        lambda: SpectralPool2d(output_size=9)(torch.rand(1, 1, 8, 8)),
        ValueError,
        "output_size 9 is larger than the 8 pixels",
    ),
    (
        lambda: PolyphaseUpsample2d()(torch.rand(2, 1, 4, 4), torch.tensor([1])),
        ValueError,
        r"phase must be integers of shape \(2,\) or weights of shape \(2, 4\)",
    ),
]


@pytest.mark.parametrize(("wrong", "error", "words"), WRONG)
def test_wrong_arguments(wrong: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong()


@pytest.mark.parametrize("name", POOLS)
def test_wrong_input(name: str) -> None:
    pool = made(name)
    with pytest.raises(ValueError, match=r"x must have shape \(N, C, H, W\), got \(5, 5\)"):
        pool(torch.rand(5, 5))
    with pytest.raises(TypeError, match="floating-point"):
        pool(torch.ones(1, CHANNELS, 4, 4, dtype=torch.uint8))
    if name in EXACT:
        with pytest.raises(ValueError, match=r"7 x 8 pixels .* must be multiples of 2"):
            pool(torch.rand(1, CHANNELS, 7, 8))
    if name in ("lps", "tips", "adaptive"):
        with pytest.raises(ValueError, match=f"x must have {CHANNELS} channels, got 5"):
            pool(torch.rand(1, 5, 4, 4))

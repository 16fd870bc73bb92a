"""Stems that are trained, with moduli where their filters are Gabor-like."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from dtwpt.invariance import analytic_kernels  # noqa: E402
from dtwpt.nn.antialias import antialias_stem, restore_stem  # noqa: E402
from dtwpt.nn.antialiased import AntialiasedStem  # noqa: E402
from dtwpt.nn.geometry import window_average  # noqa: E402
from dtwpt.nn.surgery import stem_cost  # noqa: E402
from tests.photographs import crops  # noqa: E402

# Frequencies (down, right) of the filters that are Gabor-like, rad/pixel.
WAVES = ((1.3, 0.4), (0.0, 1.5), (-1.1, 1.2), (1.6, -0.3), (1.2, 0.9), (-0.4, 1.4))
GABOR = range(len(WAVES))
GREEN = (0.3, 0.9, -0.2)


def _gabor(theta: tuple[float, float], phase: float, side: int = 11, sigma: float = 2.2) -> Any:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    envelope = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return envelope * np.cos(theta[0] * y + theta[1] * x + phase) / envelope.sum() * 2


def _network(
    side: int = 11, bias: bool = False, norm: bool = True, pool: Any = None, seed: int = 0
) -> Any:
    """Return a small trained-looking network: Gabor filters, then ones that are not."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    kernels = [
        np.multiply.outer(GREEN, _gabor(theta, phase, side))
        for theta, phase in zip(WAVES, rng.uniform(0, 6, len(WAVES)), strict=True)
    ]
    blob = np.hanning(side + 2)[1:-1, None] * np.hanning(side + 2)[1:-1]
    two_colours = np.stack([_gabor((1.3, 0), 0, side), _gabor((0, 1.3), 0, side), 0 * blob])
    kernels += [rng.normal(size=(3, side, side)) / side, np.stack([blob / 9] * 3), two_colours]
    conv = nn.Conv2d(3, len(kernels), side, 2, side // 2, bias=bias)
    conv.weight.data = torch.from_numpy(np.array(kernels)).float()
    layers: list[Any] = [conv]
    if norm:
        layers.append(nn.BatchNorm2d(len(kernels)))
        for values, low, high in (
            (layers[1].weight, 0.5, 1.5),
            (layers[1].bias, -0.5, 0.5),
            (layers[1].running_mean, -0.5, 0.5),
            (layers[1].running_var, 0.5, 1.5),
        ):
            values.data.uniform_(low, high, generator=generator)
        with torch.no_grad():
            layers[1].weight[1::3] *= -1
    layers += [nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1) if pool is None else pool]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(5))


NAMES = {"conv": "0", "norm": "1", "act": "2", "pool": "3"}


def _prepared(**options: Any) -> tuple[Any, Any]:
    model = _network(**options)
    model(torch.rand(2, 3, 64, 64))
    names = {"conv": "0", "act": "1", "pool": "2"} if options.get("norm") is False else NAMES
    return model.eval(), names


def _stem(model: Any, names: Any) -> Any:
    return model[: len(names)]


def _photographs(count: int = 6, size: int = 128) -> Any:
    grey = np.stack(list(crops(size, count)))[:, None]
    return torch.from_numpy(np.concatenate([grey, grey**1.2, 0.9 * grey], 1)).float() - 0.4


def test_only_gabor_like_filters_are_changed_and_it_says_why() -> None:
    model, names = _prepared()
    before = copy.deepcopy(model.state_dict())
    x = _photographs()
    expected = _stem(model, names)(x)
    stable = antialias_stem(model, **names)
    stem = stable[0]
    assert isinstance(stem, AntialiasedStem)
    assert [c.channel for c in stem.channels if c.changed] == list(GABOR)
    assert [c.reason.split(":")[0] for c in stem.channels[len(WAVES) :]] == [
        "of no one colour",
        "low-pass",
        "of no one colour",
    ]
    for channel, theta in enumerate(WAVES):
        report = stem.channels[channel]
        assert report.gabor_likeness > 0.9
        assert report.colour_share == pytest.approx(1)
        assert report.frequency == pytest.approx(np.hypot(*theta), abs=0.1)
        away = report.orientation - np.degrees(np.arctan2(*theta))
        assert abs((away + 90) % 180 - 90) < 4
        assert report.norm_sign == (-1 if channel % 3 == 1 else 1)
    actual = _stem(stable, names)(x)
    assert actual.shape == expected.shape
    rest = slice(len(WAVES), None)
    torch.testing.assert_close(actual[:, rest], expected[:, rest], rtol=1e-6, atol=1e-6)
    assert (actual[:, : len(WAVES)] - expected[:, : len(WAVES)]).abs().max() > 0.01
    # The network given is as it was, and can be had back.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    restored = restore_stem(stable)
    assert restored.state_dict().keys() == before.keys()
    assert torch.equal(_stem(restored, names)(x), expected)
    assert isinstance(stable[0], AntialiasedStem)
    # What is printed.
    assert "6 of 9 channels changed, threshold=0.6" in repr(stable)
    assert len(stem.summary().splitlines()) == 10
    assert stem_cost(stable).parameters == stem_cost(model, **names).parameters


@pytest.mark.parametrize(
    ("side", "bias", "norm", "pool"),
    [
        (11, False, True, None),
        (11, True, False, nn.MaxPool2d(3, 2)),
        (10, True, True, nn.MaxPool2d(2, 2, ceil_mode=True)),
        (11, False, True, nn.MaxPool2d(3, 3, ceil_mode=True)),
    ],
)
def test_on_a_plane_wave_the_modulus_is_the_maximum_wherever_the_crests_are(
    side: int, bias: bool, norm: bool, pool: Any
) -> None:
    model, names = _prepared(side=side, bias=bias, norm=norm, pool=pool)
    model = model.double()
    stable = antialias_stem(model, **names)
    stem = stable[0]
    y, x = (torch.from_numpy(axis.copy()) for axis in np.mgrid[:96, :97].astype(float))
    colour = torch.tensor([0.7, 0.4, 0.5], dtype=torch.float64)[:, None, None]
    mean = 0.6
    weight = model[0].weight.detach().numpy()
    for channel, theta in enumerate(WAVES):
        response = np.tensordot(weight[channel], colour[:, 0, 0].numpy(), (0, 0))
        taps = np.arange(side)
        carrier = np.exp(1j * (theta[0] * taps[:, None] + theta[1] * taps))
        amplitude = abs((response * carrier).sum())
        peak = torch.zeros(1, len(weight), 1, 1, dtype=torch.float64)
        sign = np.sign(model[1].weight[channel].item()) if norm else 1
        offset = model[0].bias[channel].item() if bias else 0
        scale: Any = 1.0
        if norm:
            scale = (model[1].weight / (model[1].running_var + model[1].eps).sqrt())[channel]
            scale = abs(scale.item())
        peak[:, channel] = sign * amplitude + mean * response.sum() + offset
        expected = (model[1:3](peak) if norm else model[1](peak))[0, channel].item()
        outputs = []
        for phase in (0.0, 0.7, 2.9):
            wave = mean + torch.cos(theta[0] * y + theta[1] * x + phase)
            with torch.no_grad():
                outputs.append(_stem(stable, names)((colour * wave)[None])[0, channel])
        for out in outputs:
            inner = out[7:-7, 7:-7]
            assert inner.numel() > 5
            # The taps that are left out have a thousandth of the energy.
            assert (inner - expected).abs().max() < 0.05 * scale * amplitude
    assert stem.channels[0].changed


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.MaxPool2d((2, 5), (3, 1), (1, 2)),
    ],
)
def test_averages_over_the_windows_of_the_maximum(pool: Any) -> None:
    x = torch.rand(2, 3, 12, 9, dtype=torch.float64)
    average = window_average(x, pool)
    assert average.shape == pool(x).shape
    assert (average <= pool(x)).all()
    assert (average >= -pool(-x)).all()
    one = torch.ones(1, 2, 10, 11)
    torch.testing.assert_close(window_average(one, pool), torch.ones_like(pool(one)))
    # Amid the image: binomial weights.
    window, hop, padding = (
        value if isinstance(value, tuple) else (value, value)
        for value in (pool.kernel_size, pool.stride, pool.padding)
    )
    binomial = {2: [1, 1], 3: [1, 2, 1], 5: [1, 4, 6, 4, 1]}
    weights = torch.tensor(np.multiply.outer(*(binomial[n] for n in window)), dtype=x.dtype)
    top, left = 2 * hop[0] - padding[0], 3 * hop[1] - padding[1]
    part = x[..., top : top + window[0], left : left + window[1]]
    expected = (weights / weights.sum() * part).sum((2, 3))
    torch.testing.assert_close(average[..., 2, 3], expected)


def test_moduli_stand_amid_their_pooling_windows() -> None:
    # A packet of waves well within the image: the modulus has its peak where max pooling has.
    for pool in (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2), nn.MaxPool2d(5, 4, 1)):
        model, names = _prepared(norm=False, pool=pool)
        stable = antialias_stem(model, **names)
        y, x = np.mgrid[:160, :144]
        for channel, theta in enumerate(WAVES):
            centre = np.array([83.0, 70.0])
            away = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
            moments = []
            for network in (model, stable):
                total: Any = 0
                for phase in np.arange(8) * np.pi / 4:
                    packet = np.exp(-away / 300) * np.cos(theta[0] * y + theta[1] * x + phase)
                    image = torch.from_numpy(packet).float().expand(1, 3, -1, -1)
                    with torch.no_grad():
                        total = total + _stem(network, names)(image)[0, channel].double() ** 2
                rows, columns = torch.meshgrid(
                    *(torch.arange(n, dtype=torch.float64) for n in total.shape), indexing="ij"
                )
                moments.append([(axis * total).sum() / total.sum() for axis in (rows, columns)])
            np.testing.assert_allclose(moments[0], moments[1], atol=0.03)


def test_kernels_are_the_analytic_extensions() -> None:
    model, names = _prepared()
    stem = antialias_stem(model, **names)[0]
    kernels = stem.analytic_kernels().detach().numpy()
    weight = stem.conv.weight.detach().double().numpy()[: len(WAVES)]
    weight -= weight.mean((2, 3), keepdims=True)
    whole = analytic_kernels(weight, GREEN) / np.dot(GREEN, GREEN)
    down, across = stem.reach.tolist()
    top = 3 * 11 // 2
    kept = whole[:, top - down : top + 11 + down, top - across : top + 11 + across]
    expected = np.multiply.outer(GREEN, kept).swapaxes(0, 1)
    # Conjugates have the same modulus.
    side = np.sign((expected.imag * kernels.imag).sum((1, 2, 3), keepdims=True))
    # Half-planes differ by the frequencies on their very edge.
    error = np.abs(kernels - (expected.real + 1j * side * expected.imag)) ** 2
    assert (error.sum((1, 2, 3)) / (np.abs(expected) ** 2).sum((1, 2, 3))).max() < 1e-3
    energy = (np.abs(kept) ** 2).sum((1, 2)) / (np.abs(whole) ** 2).sum((1, 2))
    assert energy.min() > 0.999
    assert max(down, across) < top


def _movement(layers: nn.Module, x: Any) -> Any:
    """Relative squared change of each channel under a shift of one pixel, down or across."""
    inner = (..., slice(4, -4), slice(4, -4))
    with torch.no_grad():
        still = layers(x[..., 1:, 1:])[inner]
        moved = [layers(part)[inner] for part in (x[..., :-1, 1:], x[..., 1:, :-1])]
    change = sum(((part - still) ** 2).sum((0, 2, 3)) for part in moved) / 2
    return change / (still**2).sum((0, 2, 3))


def test_changed_channels_move_less_on_photographs() -> None:
    model, names = _prepared(norm=False)
    stable = antialias_stem(model, **names)
    changed = [c.channel for c in stable[0].channels if c.changed]
    assert changed == list(GABOR)
    x = _photographs(12, 97)
    before, after = _movement(_stem(model, names), x), _movement(_stem(stable, names), x)
    assert (after[changed] < before[changed]).all()
    assert after[changed].mean() < before[changed].mean() / 2
    rest = [c.channel for c in stable[0].channels if not c.changed]
    torch.testing.assert_close(after[rest], before[rest])


def test_calibration_gives_the_moments_of_the_maximum() -> None:
    model, names = _prepared(bias=True)
    images, unseen = _photographs(24).split((16, 8))
    expected = _stem(model, names)(unseen)
    sign = model[1].weight[: len(WAVES), None, None].sign()
    moments = {}
    for name, given in (
        ("none", None),
        ("tensor", images),
        ("batches", list(images.split(5))),
        ("labelled", [(batch, 0) for batch in images.split(7)]),
        ("mappings", [{"pixel_values": batch} for batch in images.split(7)]),
        ("single", list(images)),
    ):
        stable = antialias_stem(model, calibrate=given, **names)
        assert stable[0].calibrated is (given is not None)
        rest = slice(len(WAVES), None)
        actual = _stem(stable, names)(unseen)
        torch.testing.assert_close(actual[:, rest], expected[:, rest], rtol=1e-6, atol=1e-6)
        # The modulus, and what it stands for, before normalisation.
        for kind, x in (("seen", images), ("unseen", unseen)):
            constant, wave = (part.detach().double() for part in stable[0].parts(x))
            maximum = model[3](sign * model[0](x)[:, : len(WAVES)]) - sign * constant
            moments[name, kind] = [
                torch.stack([values.mean((0, 2, 3)), values.std((0, 2, 3))]).detach()
                for values in (wave, maximum.double())
            ]
        if given is not None:
            torch.testing.assert_close(*moments[name, "seen"], rtol=1e-4, atol=1e-6)
    away = {
        name: (moments[name, "unseen"][0] / moments[name, "unseen"][1] - 1).abs()
        for name in ("none", "tensor")
    }
    assert (away["tensor"].mean(1) < away["none"].mean(1) / 2).all()
    for name in ("batches", "labelled", "mappings", "single"):
        torch.testing.assert_close(moments[name, "unseen"][0], moments["tensor", "unseen"][0])


def test_training_normalises_as_the_original_does() -> None:
    model, names = _prepared(bias=True)
    x = _photographs()
    original = copy.deepcopy(model).train()
    stable = antialias_stem(original, **names)
    assert stable[0].training
    expected, actual = _stem(original, names)(x), _stem(stable, names)(x)
    rest = slice(len(WAVES), None)
    torch.testing.assert_close(actual[:, rest], expected[:, rest])
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(stable[0].norm, name), getattr(original[1], name))
    # With the statistics of the batch as running ones, evaluation gives the same.
    y = stable[0].conv(x).detach()
    stable[0].norm.running_mean = y.mean((0, 2, 3))
    stable[0].norm.running_var = y.var((0, 2, 3), correction=0)
    torch.testing.assert_close(_stem(stable.eval(), names)(x), actual, rtol=1e-4, atol=1e-5)

    stable.train()
    loss: Any = [nn.functional.cross_entropy(stable(x), torch.arange(6) % 5)]
    loss[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in stable.parameters())
    torch.optim.SGD(stable.parameters(), lr=0.01).step()
    assert nn.functional.cross_entropy(stable(x), torch.arange(6) % 5) < loss[0]


def test_gradients_are_right_and_finite_where_the_modulus_is_zero() -> None:
    model, names = _prepared(bias=True, side=5)
    stable = antialias_stem(model, threshold=0.5, **names).double()
    stem = stable[0]
    assert stem.changed.numel() > 0
    stem.act = None  # a corner of ReLU has no derivative
    x = torch.rand(1, 3, 13, 12, dtype=torch.float64, requires_grad=True)
    weights = (stem.conv.weight, stem.conv.bias, stem.norm.weight)
    assert torch.autograd.gradcheck(lambda x, *_: stem(x)[:, stem.changed], (x, *weights))
    flat = torch.full((1, 3, 32, 32), 0.3, dtype=torch.float64, requires_grad=True)
    stem(flat).sum().backward()
    assert flat.grad.isfinite().all()


def test_copies_pickles_and_state_dicts_give_the_same_network() -> None:
    model, names = _prepared()
    x = _photographs()
    stable = antialias_stem(model, calibrate=x, **names)
    expected = stable(x)
    assert torch.equal(copy.deepcopy(stable)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(stable))(x), expected)

    # A network with other filters, in other channels, becomes this one.
    other, _ = _prepared(seed=1)
    other[0].weight.data = other[0].weight.data.roll(2, 0)
    other = antialias_stem(other, **names)
    assert [c.changed for c in other[0].channels] != [c.changed for c in stable[0].channels]
    state = stable.state_dict()
    assert not {"0.hilbert", "0.order", "0.changed"} & state.keys()
    other.load_state_dict(state)
    assert torch.equal(other(x), expected)
    assert other[0].channels == stable[0].channels
    # Weights that are loaded into the original's modules need no stem.
    restore_stem(stable).load_state_dict(model.state_dict())
    nested: Any = nn.ModuleDict({"network": stable})
    assert isinstance(restore_stem(nested)["network"][0], nn.Conv2d)


def test_dtypes_and_half_precision() -> None:
    model, names = _prepared()
    x = _photographs()
    stable = antialias_stem(model, **names)
    expected = _stem(copy.deepcopy(stable).double(), names)(x.double())
    for dtype in (torch.float32, torch.bfloat16):
        actual = _stem(copy.deepcopy(stable).to(dtype), names)(x.to(dtype))
        assert actual.dtype == dtype
        error = (actual - expected).norm() / expected.norm()
        assert error < (1e-5 if dtype == torch.float32 else 2e-2)
    for stem in (stable, copy.deepcopy(stable).train()):
        with torch.autocast("cpu", torch.bfloat16):
            assert _stem(stem, names)(x).dtype == torch.bfloat16


# Compiling imports parts of torch that use what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiles_without_a_break_and_for_any_size() -> None:
    model, names = _prepared(pool=nn.MaxPool2d(3, 2, ceil_mode=True))
    stable = _stem(antialias_stem(model, **names), names)
    torch._dynamo.reset()
    compiled = torch.compile(stable, fullgraph=True, dynamic=True, backend="aot_eager")
    x = _photographs()
    first = x[..., :120].contiguous()
    torch.testing.assert_close(compiled(first), stable(first))
    with torch.compiler.set_stance("fail_on_recompile"):
        part = x[:4, :, :101, :92].contiguous()
        torch.testing.assert_close(compiled(part), stable(part))
    torch._dynamo.reset()


def test_what_cannot_be_changed_is_refused() -> None:
    deep = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 6, 3))

    def stem(conv: Any = None, **parts: Any) -> Any:
        options: Any = {"kernel_size": 7, "stride": 2, "padding": 3}
        modules = {
            "conv": conv if conv is deep else nn.Conv2d(3, 6, **options | (conv or {})),
            "norm": nn.BatchNorm2d(6),
            "act": nn.ReLU(),
            "pool": nn.MaxPool2d(3, 2, 1),
        } | parts
        return nn.ModuleDict(modules)

    names: Any = {name: name for name in ("conv", "norm", "act", "pool")}
    for model, message in (
        (stem({"groups": 3}), "groups=1, got 3"),
        (stem({"dilation": 2}), "dilation"),
        (stem({"padding_mode": "reflect"}), "padding_mode='zeros'"),
        (stem({"stride": (2, 1)}), "one stride"),
        (stem({"stride": 1, "padding": "same"}), "padding as numbers"),
        (stem(pool=nn.AvgPool2d(2)), "MaxPool2d.*got AvgPool2d"),
        (stem(pool=nn.MaxPool2d(3, 2, dilation=2)), "dilation=1"),
        (stem(norm=nn.GroupNorm(2, 6)), "norm must be BatchNorm2d.*got GroupNorm"),
        (stem(act=nn.SiLU()), "act must never decrease.*SiLU does"),
        (stem(deep), "Sequential of several modules"),
    ):
        with pytest.raises(ValueError, match=message):
            antialias_stem(model, **names)
    with pytest.raises(ValueError, match=r"pool must be an nn\.MaxPool2d.*got none"):
        antialias_stem(stem(), conv="conv")
    with pytest.raises(ValueError, match="threshold must be a number from 0 to 1"):
        antialias_stem(stem(), threshold=80, **names)
    model, names = _prepared()
    with pytest.raises(TypeError, match="calibrate must be images"):
        antialias_stem(model, calibrate=3, **names)
    with pytest.raises(ValueError, match=r"calibrate must be images \(N, 3, H, W\)"):
        antialias_stem(model, calibrate=torch.rand(2, 1, 64, 64), **names)
    with pytest.raises(ValueError, match="at least one image"):
        antialias_stem(model, calibrate=[], **names)
    with pytest.raises(ValueError, match="no stem that antialias_stem made"):
        restore_stem(model)
    model[0].weight.data[0] = 0
    with pytest.warns(UserWarning, match="none of 9 filters is Gabor-like with threshold=1"):
        same = antialias_stem(model, threshold=1, **names)
    assert same[0].channels[0].reason == "the filter is zero"
    x = _photographs()
    assert torch.equal(same(x), model(x))


@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers", "alexnet"])
def test_networks_that_people_have(library: str) -> None:
    if library == "transformers":
        transformers = pytest.importorskip("transformers")
        config = transformers.ResNetConfig(embedding_size=9, hidden_sizes=[8], depths=[1])
        model, place = transformers.ResNetModel(config), "embedder.embedder.convolution"
    elif library == "timm":
        model, place = pytest.importorskip("timm").create_model("resnet18"), "conv1"
    elif library == "alexnet":
        model, place = pytest.importorskip("torchvision").models.alexnet(), "features.0"
    else:
        model, place = pytest.importorskip("torchvision").models.resnet18(), "conv1"
    conv = model.eval().get_submodule(place)
    side = conv.kernel_size[0]
    sigma = 1.8 if conv.stride[0] == 2 else 3.6
    scale = 2 / conv.stride[0]
    for channel in range(0, conv.out_channels, 2):
        down, across = WAVES[channel % len(WAVES)]
        wave = _gabor((down * scale, across * scale), channel, side, sigma)
        conv.weight.data[channel] = torch.from_numpy(wave)
    stable = antialias_stem(model, threshold=0.7)
    stem = stable.get_submodule(place)
    assert stem.changed.numel() >= conv.out_channels // 2
    x = torch.rand(1, 3, 97, 129)
    with torch.no_grad():
        for out, reference in zip(
            _leaves(stable(x)), _leaves(restore_stem(stable)(x)), strict=True
        ):
            assert out.shape == reference.shape
            assert not torch.equal(out, reference)


def _leaves(out: Any) -> list[Any]:
    return [out] if isinstance(out, torch.Tensor) else list(out.to_tuple())

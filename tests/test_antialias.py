"""Trained layers that are averaged over small shifts."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from dtwpt.invariance import gamma  # noqa: E402
from dtwpt.nn import AntialiasedStem, ShiftAverage, antialias_stem, restore_stem  # noqa: E402
from dtwpt.nn.refit import Target, refit  # noqa: E402
from dtwpt.nn.renorm import renorm  # noqa: E402
from tests.photographs import crops  # noqa: E402

NAMES: Any = {"conv": "0", "norm": "1", "act": "2", "pool": "3"}


def _stem(stride: int = 2, pool: Any = None) -> Any:
    modules = [nn.Conv2d(3, 4, 5, stride, 2, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)]
    stem = nn.Sequential(*modules, nn.MaxPool2d(3, 2, 1) if pool is None else pool)
    stem.train()(torch.randn(4, 3, 64, 64))  # statistics
    return stem.eval().double()


class Residual(nn.Module):
    """Block whose stride is in its first convolution and its shortcut."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)  # twice
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, groups=2)
        self.shortcut = nn.Conv2d(channels, channels, 1, stride)

    def forward(self, x: Any) -> Any:
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        return self.relu(y + self.shortcut(x))


def _network() -> Any:
    torch.manual_seed(0)
    network = nn.Sequential(*_stem(), Residual(4, 1), Residual(4, 2), Residual(4, 2))
    network.float().train()(_photographs(16))
    return network.eval()


def _photographs(count: int, size: int = 96) -> Any:
    grey = np.stack(list(crops(size, count)))[:, None]
    return torch.from_numpy(np.concatenate([grey, grey**1.2, 0.9 * grey], 1)).float() * 4 - 2


@pytest.mark.parametrize(
    ("stride", "pool", "weights"),
    [
        (2, nn.MaxPool2d(3, 2, 1), (1, 2, 1)),
        (2, nn.MaxPool2d(3, 2, ceil_mode=True), (1, 4, 6, 4, 1)),
        (4, nn.MaxPool2d(3, 2), (1, 2, 3, 3, 3, 2, 1)),
        (1, nn.AvgPool2d(2), (0, 1, 3)),
        (3, nn.Identity(), (1, 4, 6, 4, 1)),
    ],
)
def test_output_is_the_mean_over_shifted_images(stride: int, pool: Any, weights: Any) -> None:
    stem = _stem(stride, pool)
    conv, norm, act, pooling = stem
    average = ShiftAverage(conv, norm, act, pooling, weights)
    reach, size = len(weights) // 2, 100
    large = torch.randn(2, 3, size + 2 * reach, size + 2 * reach, dtype=torch.float64)

    def seen(down: int, right: int) -> Any:
        top, left = reach + down, reach + right
        return large[..., top : top + size, left : left + size]

    steps = range(-reach, reach + 1)
    expected = sum(
        a * b * stem(seen(down, right))
        for down, a in zip(steps, average.weights, strict=True)
        for right, b in zip(steps, average.weights, strict=True)
    )
    actual = average(seen(0, 0))
    assert actual.shape == expected.shape
    inner = (..., slice(4, -4), slice(4, -4))  # away from the border
    assert actual[inner].numel() > 0
    torch.testing.assert_close(actual[inner], expected[inner], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(average(seen(0, 0)[1]), actual[1])  # not in a batch
    torch.testing.assert_close(average.original(large), stem(large), rtol=0, atol=0)


def test_one_shift_is_the_layer_itself_and_linear_layers_average_their_input() -> None:
    x = torch.randn(1, 3, 33, 40, dtype=torch.float64)
    stem = _stem()
    conv, norm, act, pool = stem
    torch.testing.assert_close(ShiftAverage(conv, norm, act, pool, [1])(x), stem(x))
    general = ShiftAverage(conv, act=nn.Identity())(x)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(ShiftAverage(conv)(x)[inner], general[inner])


class Deep(nn.Module):
    """Several convolutions whose strides do not tell that of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(inplace=True)
        self.side, self.main = nn.Conv2d(5, 4, 2, 2), nn.Conv2d(5, 4, 3, 1, 1)

    def forward(self, x: Any) -> Any:
        y = self.act(self.first(x))
        return self.side(y) + self.main(y)[..., ::2, ::2]


@pytest.mark.parametrize("deep", [Deep(), nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU())])
def test_several_convolutions_are_averaged_at_their_output(deep: nn.Module) -> None:
    average = ShiftAverage(deep.double(), weights=(1, 3, 2))
    channels, stride = (4, 4) if isinstance(deep, Deep) else (6, 2)
    assert average.stride == (stride, stride)
    large = torch.randn(1, 3, 66, 50, dtype=torch.float64)
    expected = sum(
        w * v / 36 * deep(large[..., i : 64 + i, j : 48 + j])
        for i, w in enumerate((1, 3, 2))
        for j, v in enumerate((1, 3, 2))
    )
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(average(large[..., 1:-1, 1:-1])[inner], expected[inner])
    # What networks and tools read of a convolution.
    assert (average.in_channels, average.out_channels) == (3, channels)
    assert average.weight is next(deep.parameters())


def test_networks_may_read_the_convolution() -> None:
    class Reading(nn.Sequential):
        def forward(self, x: Any) -> Any:
            conv: Any = self[0]  # as the ResNets of CLIP do
            x = x.to(conv.weight.dtype)[:, : conv.in_channels]
            for module in self:
                x = module(x)
            return x

    model = Reading(*_stem(), nn.Conv2d(4, 2, 1).double())
    assert antialias_stem(model, **NAMES)(torch.rand(1, 5, 32, 32)).shape == (1, 2, 8, 8)


@pytest.mark.parametrize("theta", [(1.3, 0.5), (2.1, 1.2), (0.4, 2.4)])
def test_of_a_wave_the_average_tends_to_a_constant_times_the_modulus(theta: Any) -> None:
    # docs/theory.rst derives the constant, and what is left for each harmonic of the phase.
    side, reach, stride = 9, 4, 2
    conv = nn.Conv2d(1, 1, side, stride, 4, bias=False).double()
    taps = torch.from_numpy(np.mgrid[:side, :side].astype(float)) - 4
    envelope = torch.exp(-(taps**2).sum(0) / 8)
    phase = theta[0] * taps[0] + theta[1] * taps[1]
    conv.weight.data[0, 0] = envelope * phase.cos()
    modulus = (envelope * torch.exp(1j * phase) * phase.cos()).sum().abs()
    y, x = torch.from_numpy(np.mgrid[:96, :101].astype(float))
    average = ShiftAverage(
        conv, None, nn.ReLU(), nn.MaxPool2d(3, 2, 1), [1, 8, 28, 56, 70, 56, 28, 8, 1]
    )
    with torch.no_grad():
        out = average(torch.cos(theta[0] * y + theta[1] * x)[None, None])[..., 6:-6, 6:-6]
    steps = np.arange(-1, 2) * stride
    phases = np.sort((np.add.outer(theta[0] * steps, theta[1] * steps) % (2 * np.pi)).ravel())
    gaps = np.diff(phases, append=phases[0] + 2 * np.pi)
    constant = np.sin(np.minimum(gaps, np.pi) / 2).sum() / np.pi
    second = 0.5 + np.sin(gaps).sum() / (4 * np.pi)
    assert 1 - 2 * constant + second == pytest.approx(gamma(theta, stride) ** 2, abs=1e-12)
    # Harmonics of the maximum have at most its standard deviation, and the first is damped least.
    damping = max(
        abs(np.cos(k * theta[0] / 2) * np.cos(k * theta[1] / 2)) ** (2 * reach)
        for k in range(1, 30)
    )
    left = (out / modulus - constant).square().mean().sqrt()
    assert left <= damping * np.sqrt(second - constant**2) + 1e-3
    assert left < 0.02


def test_restored_copied_and_loaded_networks() -> None:
    network, images = _network(), _photographs(6)
    x = _photographs(4)
    expected, state = network(x), copy.deepcopy(network.state_dict())
    network[0].register_forward_hook(lambda *_: pytest.fail("a hook ran during surgery"))
    stable = antialias_stem(network, images, layers="all", **NAMES)
    network[0]._forward_hooks.clear()
    stable[0].conv._forward_hooks.clear()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not network.training
    kinds = [name for name, m in stable.named_modules() if isinstance(m, ShiftAverage)]
    assert kinds == ["0", "5.conv1", "5.shortcut", "6.conv1", "6.shortcut"]
    assert stable[0].stride == (4, 4)
    assert not {name for name, _ in stable[0].named_buffers()} - {
        f"norm.{name}" for name, _ in stable[0].norm.named_buffers()
    }
    after = stable(x)
    assert after.shape == expected.shape
    assert not torch.allclose(after, expected, rtol=0.01)
    for other in (copy.deepcopy(stable), pickle.loads(pickle.dumps(stable))):
        assert torch.equal(other(x), after)
        nested: Any = nn.ModuleDict({"network": other})
        restored = restore_stem(nested)["network"]
        assert restored.state_dict().keys() == state.keys()
        assert torch.equal(restored(x), expected)
    plain = antialias_stem(network, **NAMES)
    fitted = antialias_stem(network, images, **NAMES)
    assert not torch.equal(plain(x), fitted(x))
    plain.load_state_dict(fitted.state_dict())
    assert torch.equal(plain(x), fitted(x))
    assert antialias_stem(network, images, inplace=True, **NAMES) is network
    assert torch.equal(network(x), fitted(x))
    assert torch.equal(restore_stem(network, inplace=True)(x), expected)
    with pytest.raises(ValueError, match="no stem that antialias_stem made"):
        restore_stem(network)


def test_correction_brings_a_network_back_and_keeps_it_stable() -> None:
    network = _network()
    x = _photographs(24, 97)

    def measured(model: Any) -> tuple[float, float]:
        with torch.no_grad():
            still, moved = (model(part).mean((2, 3)) for part in (x[..., 1:, 1:], x[..., 1:, :-1]))
            original = network(x[..., 1:, 1:]).mean((2, 3))
        spread = (original - original.mean(0)).square().sum()
        change = (moved - still).square().sum() / still.square().sum()
        return float(change), float((still - original).square().sum() / spread)

    images = [_photographs(18).split(5)[k] for k in range(3)]
    change, _ = measured(network)
    box: Any = {"weights": [1] * 7}
    stem_change, stem_distance = measured(antialias_stem(network, **box, **NAMES))
    fitted_change, fitted_distance = measured(antialias_stem(network, images, **box, **NAMES))
    assert max(stem_change, fitted_change) < 0.6 * change
    assert fitted_distance < stem_distance
    # The later layers on their own.
    later = antialias_stem(network, images, layers="all", weights=[1], **NAMES)
    assert measured(later)[0] < 0.9 * change
    for given in ([(batch, 0) for batch in images], [{"pixel_values": b} for b in images]):
        again = antialias_stem(network, given, **box, **NAMES)
        assert measured(again)[0] == pytest.approx(fitted_change, rel=1e-5)


@pytest.mark.parametrize("layers", ["stem", "all"])
def test_norms_take_the_statistics_of_images(layers: str) -> None:
    network, images = _network(), _photographs(40)
    norms = [network[k].bn1 for k in (4, 5)]
    for k, norm in enumerate(norms):
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        norm.momentum = 0.1 * k
    network[6].bn1 = nn.BatchNorm2d(4, track_running_stats=False)  # nothing to estimate
    network.eval()
    expected, state = network(images), copy.deepcopy(network.state_dict())
    options: Any = {"layers": layers, "reach": 4, **NAMES}
    stable = antialias_stem(network, images, correction="norms", **options)
    assert "2 norms re-estimated" in repr(stable)
    assert not any(module.training for module in stable.modules())
    later = [m for m in stable[4:].modules() if isinstance(m, nn.BatchNorm2d)][:2]
    seen: list[Any] = []
    for norm, original in zip(later, norms, strict=True):
        assert norm.momentum == original.momentum
        norm.register_forward_hook(lambda *call: seen.append(call[2].transpose(0, 1).flatten(1)))
    stable(images)
    for norm, out in zip(later, seen, strict=True):
        torch.testing.assert_close(out.mean(1), norm.bias, rtol=0, atol=1e-3)
        torch.testing.assert_close(out.std(1), norm.weight, rtol=1e-3, atol=0)
        norm._forward_hooks.clear()
    # Nothing else has changed, and this is undone.
    restored = restore_stem(pickle.loads(pickle.dumps(stable)))
    torch.testing.assert_close(restored.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(restored(images), expected)
    # A single image more does not become a batch of its own, and a failure changes nothing.
    many = torch.cat([images, images[:25]])
    last = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4)).eval()
    names: Any = {role: f"0.{name}" for role, name in NAMES.items()}
    stable = antialias_stem(last, many, correction="norms", **names)
    final: Any = stable[3]
    assert final.num_batches_tracked == 2
    state = copy.deepcopy(stable.state_dict())
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        renorm(stable, [final], many[:1])
    torch.testing.assert_close(stable.state_dict(), state, rtol=0, atol=0)


def test_fit_is_the_least_squares_solution() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 6, 3, 2, 1, groups=2, bias=False), nn.BatchNorm2d(6)
    changed: Any = nn.Sequential(nn.Conv2d(4, 4, 1), conv, norm).double().eval()
    original = copy.deepcopy(changed)
    with torch.no_grad():
        changed[0].weight[1] = changed[0].bias[1] = 0  # a dead channel
        changed[0].weight[2] += 0.3
    x = torch.randn(8, 4, 31, 30, dtype=torch.float64)
    with torch.no_grad():
        target = original[:2](x)
        before = (conv(changed[0](x)) - target).square().mean((0, 2, 3))
        columns = nn.functional.unfold(changed[0](x), 3, padding=1, stride=2)
        (fitted,) = refit(original, changed, [Target("1", conv, conv, norm)], x, x)
        assert fitted.mean is not None
        offset = changed[2].running_mean - fitted.mean
        after = conv(changed[0](x)) - target - offset[:, None, None]
    for group in range(2):
        part = columns[:, 18 * group : 18 * group + 18].transpose(1, 2).flatten(0, 1)
        with_one = torch.cat([part, torch.ones(len(part), 1).to(part)], 1)
        wanted = target[:, 3 * group : 3 * group + 3].permute(0, 2, 3, 1).flatten(0, 2)
        rest = wanted - with_one @ torch.linalg.lstsq(with_one, wanted, driver="gelsd").solution
        best = rest.square().mean(0)
        ours = after[:, 3 * group : 3 * group + 3].square().mean((0, 2, 3))
        assert (ours >= best - 1e-12).all()
        # The ridge costs little of what can be had.
        assert (ours - best < 0.25 * (before[3 * group : 3 * group + 3] - best)).all()
    assert conv.weight.isfinite().all()
    dead = conv.weight[:3, 1] - original[1].weight[:3, 1]
    assert dead.abs().max() < 1e-12
    fitted.restore()
    torch.testing.assert_close(changed[1:].state_dict(), original[1:].state_dict())


class Twice(nn.Module):
    """Network that uses a part of its stem again, or hands out what is within it."""

    def __init__(self, again: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.SiLU() if again == "act" else nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.again = again

    def forward(self, x: Any) -> Any:
        inside = self.relu(self.bn1(self.conv1(x)))
        x = self.conv2(self.maxpool(inside))
        if self.again in ("act", "kept act"):
            return self.relu(x)
        if self.again == "pool":
            return self.maxpool(x)
        if self.again == "returned":
            return {"inside": inside, "out": x}
        if self.again == "read":
            return x, self.conv2(inside)
        return torch.cat([nn.functional.interpolate(x, scale_factor=2.0), inside], 1)


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        ("act", "calls relu 2 times and conv1 1 times"),
        ("pool", "calls maxpool 2 times and conv1 1 times"),
        ("returned", "returns the output of relu, which would not be there"),
        ("read", "returns the output of relu, which would not be there"),
        ("joined", "returns the output of relu, which would not be there"),
    ],
)
def test_parts_that_are_used_elsewhere_are_refused(again: str, reason: str) -> None:
    network = Twice(again).eval()
    x = torch.rand(1, 3, 64, 64)
    before = network.state_dict().keys()
    for inplace in (False, True):
        with pytest.raises(ValueError, match=reason):
            antialias_stem(network, inplace=inplace)
        assert network.state_dict().keys() == before
    # What is left in place can be used again.
    kept = Twice("kept act").eval()
    assert (antialias_stem(kept)(x) >= 0).all()


def test_parts_with_two_names_are_replaced_under_both() -> None:
    encoder = Twice("")
    encoder.forward = None  # type: ignore[assignment]

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.first = nn.Sequential(encoder.conv1, encoder.bn1, encoder.relu, encoder.maxpool)

        def forward(self, x: Any) -> Any:
            return self.first(x)

    model, x = Other().eval(), torch.rand(1, 3, 64, 64)
    stable: Any = antialias_stem(model)
    assert stable.first[0] is stable.encoder.conv1
    assert not torch.equal(stable(x), model(x))
    assert torch.equal(restore_stem(stable)(x), model(x))


class LoRA(nn.Module):
    """Convolution with a correction of low rank beside it."""

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base_layer = base
        layer: Any = base
        geometry = layer.kernel_size, layer.stride, layer.padding
        self.down = nn.Conv2d(base.in_channels, 2, *geometry)
        self.up = nn.Conv2d(2, base.out_channels, 1, bias=False)

    def forward(self, x: Any) -> Any:
        return self.base_layer(x) + self.up(self.down(x))


@pytest.mark.parametrize("kind", ["weight_norm", "pruned", "lora", "deep"])
def test_modules_are_called_not_read(kind: str) -> None:
    stem = _stem()
    if kind == "weight_norm":
        parametrizations.weight_norm(stem[0])
    elif kind == "pruned":
        prune.l1_unstructured(stem[0], "weight", 0.3)  # type: ignore[no-untyped-call]
    elif kind == "lora":
        stem[0] = LoRA(stem[0]).double()
    else:
        first = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1)]
        stem[0] = nn.Sequential(*first).double()
    network = nn.Sequential(*stem)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    antialias_stem(network, inplace=True, reach=1, **NAMES)
    stable = network[0]
    assert isinstance(stable, AntialiasedStem)
    torch.testing.assert_close(stable.original(x), stem(x))
    calls = []
    stable.conv.register_forward_hook(lambda *_: calls.append(1))
    before = network(x)
    with torch.no_grad():
        next(p for p in stable.conv.parameters()).mul_(1.5)  # whichever it is
    assert not torch.allclose(network(x), before)
    assert len(calls) == 2


def test_an_adapted_layer_is_averaged_whole() -> None:
    network = nn.Sequential(*_stem(), LoRA(nn.Conv2d(4, 5, 3, 2, 1)).double(), nn.ReLU()).double()
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    stable: Any = antialias_stem(network, images, layers="all", reach=1, **NAMES)
    later = [m for m in stable.modules() if type(m) is ShiftAverage]
    assert [type(average.conv) for average in later] == [LoRA]
    assert stable[0].refitted == []  # an adapter's kernels stay as they are
    assert torch.equal(restore_stem(stable)(images), network(images))


def test_training_dtypes_and_half_precision() -> None:
    network, x = _network(), _photographs(4)
    stable = antialias_stem(network, **NAMES)
    expected = stable.double()(x.double())
    stable.float()
    half = copy.deepcopy(stable).bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - expected).norm() < 0.03 * expected.norm()
    stable.train()
    stable(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stable.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert stable[0](x).isfinite().all()


# Compiling imports parts of torch that use what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_compiles_without_a_break_and_exports_for_any_size() -> None:
    # A first layer and one block: tracing all sizes takes long.
    network, x = nn.Sequential(*_stem(), Residual(4, 2)).float().eval(), _photographs(4, 192)
    stable = antialias_stem(network, _photographs(6), layers="all", reach=1, **NAMES)
    torch._dynamo.reset()
    compiled = torch.compile(stable, fullgraph=True, dynamic=True, backend="aot_eager")
    first = x[..., :160].contiguous()
    torch.testing.assert_close(compiled(first), stable(first))
    with torch.compiler.set_stance("fail_on_recompile"):
        part = x[:3, :, :151, :180].contiguous()
        torch.testing.assert_close(compiled(part), stable(part))
    torch._dynamo.reset()
    shapes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(stable[0], (x[..., :160],), dynamic_shapes=shapes).module()
    torch.testing.assert_close(program(x[:2, :, :63, :160]), stable[0](x[:2, :, :63, :160]))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnx(tmp_path: Any) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network, x = _network(), _photographs(2)
    stable = antialias_stem(network, **NAMES)
    path = tmp_path / "stable.onnx"
    torch.onnx.export(stable, (x,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(out, stable(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_wrong_arguments() -> None:
    network = _network()
    for options, error, message in (
        ({"layers": "first"}, ValueError, 'layers must be "stem" or "all"'),
        ({"layers": "all"}, ValueError, "needs images"),
        ({"correction": "bn"}, ValueError, 'correction must be "fit" or "norms"'),
        ({"correction": "norms"}, ValueError, 'correction="norms" needs images'),
        ({"weights": (1, 1)}, ValueError, "weights must be an odd number"),
        ({"weights": (1, -2, 4)}, ValueError, "weights must be an odd number"),
        ({"weights": "box"}, TypeError, "weights must be"),
        ({"weights": (1, 2, 1), "reach": 1}, ValueError, "give weights or reach"),
        ({"reach": 1.5}, TypeError, "reach must be an integer"),
        ({"reach": -1}, ValueError, "reach must be an integer"),
        ({"images": 3}, TypeError, "images must be images"),
        ({"images": torch.rand(2, 1, 64, 64)}, ValueError, r"images must be images \(N, 3, H"),
        ({"images": []}, ValueError, "at least one image"),
    ):
        arguments: Any = options
        with pytest.raises(error, match=message):
            antialias_stem(network, **arguments, **NAMES)
    for module in network.modules():
        if isinstance(module, Residual):
            module.add_module("bn1", nn.Identity())
    with pytest.raises(ValueError, match='has none after its first layer: give correction="fit"'):
        antialias_stem(network, torch.rand(2, 3, 64, 64), correction="norms", **NAMES)
    with pytest.raises(ValueError, match="this one is on device meta"):
        antialias_stem(network.to("meta"), torch.rand(2, 3, 64, 64), **NAMES)
    network = _network()
    for name in ("threshold", "colour_threshold"):
        old: Any = {name: 0.5}
        with pytest.warns(DeprecationWarning, match=f"{name} of antialias_stem is deprecated"):
            antialias_stem(network, **old, **NAMES)
    for pool in (nn.AdaptiveMaxPool2d(7), nn.FractionalMaxPool2d(2, 8)):
        with pytest.raises(ValueError, match="has no fixed stride"):
            ShiftAverage(nn.Conv2d(3, 4, 3), pool=pool)
    with pytest.raises(ValueError, match="return_indices=False"):
        ShiftAverage(nn.Conv2d(3, 4, 3), pool=nn.MaxPool2d(2, return_indices=True))
    with pytest.raises(ValueError, match="must have shape"):
        ShiftAverage(nn.Conv2d(3, 4, 3))(torch.rand(3, 3))


@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers", "alexnet", "densenet"])
def test_networks_that_people_have(library: str) -> None:
    if library == "transformers":
        transformers = pytest.importorskip("transformers")
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
        model = transformers.ResNetModel(config)
    elif library == "timm":
        model = pytest.importorskip("timm").create_model("resnet18d")
    else:
        models = pytest.importorskip("torchvision").models
        maker = {"alexnet": "alexnet", "densenet": "densenet121", "torchvision": "resnet18"}
        model = getattr(models, maker[library])()
    model.eval()
    stable = antialias_stem(model)
    x = torch.rand(1, 3, 97, 129)
    with torch.no_grad():
        outputs = [_leaves(network(x)) for network in (model, stable, restore_stem(stable))]
    for before, after, restored in zip(*outputs, strict=True):
        assert after.shape == before.shape
        assert not torch.equal(after, before)
        assert torch.equal(restored, before)


def _leaves(out: Any) -> list[Any]:
    return [out] if isinstance(out, torch.Tensor) else list(out.to_tuple())

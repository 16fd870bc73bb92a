"""Poolings in the networks that people have: exactness, names of weights, reports, refusals."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")

from dtwpt.nn import downsampling_cost, replace_downsampling  # noqa: E402
from dtwpt.nn.downsampling_layers import FollowingPool2d  # noqa: E402
from dtwpt.nn.pooling import (  # noqa: E402
    BlurPool2d,
    LearnedPolyphasePool2d,
    PolyphasePool2d,
    SpectralPool2d,
    WaveletPool2d,
    tips_loss,
)
from dtwpt.nn.stem import WaveletStem  # noqa: E402

NAMES = ["blur", "aps", "lps", "tips", "adaptive", "spectral", "wavelet", "average"]
models = torchvision.models


def small(blocks: Any = models.resnet.BasicBlock, **options: Any) -> Any:
    return models.ResNet(blocks, [1, 1, 1, 1], num_classes=10, **options)


class VGG(models.VGG):  # type: ignore[misc, name-defined]
    """The network with a small classifier."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.features = models.vgg.make_layers([8, "M", 16, "M", 16])
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Linear(16 * 49, 10)


# Makers, and how many places subsample.
NETWORKS: dict[str, tuple[Callable[[], Any], int]] = {
    "resnet": (small, 8),
    "resnext": (
        lambda: small(models.resnet.Bottleneck, groups=32, width_per_group=1),
        8,
    ),
    "mobilenet": (lambda: models.mobilenet_v2(num_classes=10, width_mult=0.35), 5),
    "densenet": (lambda: models.DenseNet(8, (1, 1, 1, 1), 16, num_classes=10), 5),
    "convnext": (
        lambda: models.ConvNeXt(
            [
                models.convnext.CNBlockConfig(*widths, 1)
                for widths in ((16, 24), (24, 32), (32, 40), (40, None))
            ],
            num_classes=10,
        ),
        4,
    ),
    "vgg": (VGG, 2),
    "timm resnet18d": (lambda: timm.create_model("resnet18d", num_classes=10), 8),
    "timm resnetblur18": (lambda: timm.create_model("resnetblur18", num_classes=10), 8),
    "timm seresnext": (
        lambda: timm.create_model("seresnext26t_32x4d", num_classes=10, layers=(1, 1, 1, 1)),
        8,
    ),
    "timm mobilenetv2": (lambda: timm.create_model("mobilenetv2_035", num_classes=10), 5),
    "timm densenet": (
        lambda: timm.create_model("densenetblur121d", num_classes=10, block_config=(1, 1, 1, 1)),
        5,
    ),
    "timm convnext": (
        lambda: timm.create_model("test_convnext", num_classes=10),
        4,
    ),
    "timm vgg": (
        lambda: timm.models.vgg.VGG([8, "M", 16, "M", 16], num_classes=10, mlp_ratio=1 / 64),
        2,
    ),
}


def lively(make: Callable[[], Any]) -> Any:
    """Return an untrained network none of whose branches is switched off."""
    torch.manual_seed(0)
    model = make()
    for name, parameter in model.named_parameters():
        if name.endswith(("bn2.weight", "bn3.weight", "layer_scale", "gamma")):
            nn.init.ones_(parameter)
    return model.eval()


def changes(model: nn.Module, rolls: int, side: int = 64, dtype: Any = torch.float64) -> Tensor:
    """Return the largest relative change of logits under each of some random rolls."""
    torch.manual_seed(1)
    x = torch.randn(1, 3, side, side, dtype=dtype)
    shifts = torch.randint(0, side, (rolls, 2)) | torch.tensor([1, 0])  # never by the stride alone
    images = torch.cat([x, *(x.roll(shift, (2, 3)) for shift in shifts.tolist())])
    with torch.no_grad():
        logits = model(images).double()
    change: Tensor = (logits[1:] - logits[0]).abs().amax(1) / logits[0].abs().max()
    return change


@pytest.mark.parametrize("pool", [None, *NAMES])
def test_polyphase_sampling_is_exact_and_nothing_else_is(pool: str | None) -> None:
    base = lively(lambda: models.resnet18(num_classes=10))
    if pool is None:
        assert changes(base.double(), 3).min() > 1e-3
        return
    model, report = replace_downsampling(base, pool, padding="circular")
    assert report.exact == (pool in ("aps", "lps"))
    if report.exact:
        assert changes(model.double(), 20).max() < 1e-10
        with torch.autocast("cpu", torch.bfloat16):
            rounded = changes(model.float(), 20, dtype=torch.float32)
        # Convolutions round every pixel alike, and phases are chosen in float32: the same ones.
        assert rounded.max() < 1e-5
    else:
        assert changes(model.double(), 3).min() > 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name: str) -> None:
    make, count = NETWORKS[name]
    base = lively(make)
    before = {key: value.clone() for key, value in base.state_dict().items()}
    model, report = replace_downsampling(base, "aps", padding="circular")
    assert len(report) == count
    assert all(place.now == "PolyphasePool2d" for place in report)
    assert report.exact == ("vgg" not in name)  # whose classifier reads 7 x 7 maps
    worst = changes(model.double(), 3, 32 if "vgg" in name else 64).max()
    assert (worst < 1e-10) == report.exact
    # The original is as it was, and its state fits networks with parameters in their poolings.
    assert all(torch.equal(value, before[key]) for key, value in base.state_dict().items())
    learned, _ = replace_downsampling(base, "lps")
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.zero_()
    learned.load_state_dict(before)
    state = learned.state_dict()
    assert all(torch.equal(state[key], value) for key, value in before.items())
    assert state.keys() > before.keys()
    # Without padding, all sizes of maps are those of the original, so that logits have a shape.
    x = torch.randn(2, 3, 75, 64)
    for stem in ("keep", "pool", "full"):
        blurred, report = replace_downsampling(base, "blur", stem=stem)
        kept = {"keep": ("stem", "stem pool"), "pool": ("stem",), "full": ()}[stem]
        assert all((place.now == "kept") == (place.role in kept) for place in report)
        with torch.no_grad():
            assert blurred(x).shape == base(x).shape


def test_striding_is_a_pooling_of_one_tap() -> None:
    """Strides moved from convolutions to poolings that do not blur: the same network."""
    for name in ("resnet", "mobilenet", "densenet", "convnext", "timm resnet18d"):
        base = lively(NETWORKS[name][0]).double()
        x = torch.randn(1, 3, 75, 70, dtype=torch.float64)
        if name in ("densenet", "timm resnet18d"):  # which average
            for module in base.modules():
                if isinstance(module, nn.AvgPool2d):
                    module.kernel_size = 1
        model, _ = replace_downsampling(base, lambda channels: BlurPool2d(blur=1), stem="full")
        with torch.no_grad():
            expected, actual = base(x), model(x)
        assert torch.allclose(actual, expected, rtol=1e-9), name


def test_branches_share_a_phase() -> None:
    model, report = replace_downsampling(lively(small).double(), "aps", padding="circular")
    shortcuts = [place for place in report if place.role == "shortcut"]
    assert [place.leader for place in shortcuts] == [f"layer{k}.0.conv1" for k in (2, 3, 4)]
    for layer in (model.layer2, model.layer3, model.layer4):
        assert isinstance(layer[0].downsample[0].before, FollowingPool2d)
        layer[0].downsample[0].before = PolyphasePool2d()
    assert changes(model, 4).max() > 1e-3  # with a phase each
    with pytest.raises(RuntimeError, match="shortcut of a block was called before its main branch"):
        replace_downsampling(small(), "aps")[0].layer2[0].downsample(torch.rand(1, 64, 8, 8))


def test_training_commutes_with_rolling_the_batch() -> None:
    model, _ = replace_downsampling(lively(small).double().train(), "aps", padding="circular")
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    gradients = []
    for shift in ((0, 0), (3, -5)):
        model.zero_grad()
        torch.autograd.backward(model(x.roll(shift, (2, 3))).square().sum())
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-7 * float(a.abs().max()))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_copies_and_one_graph() -> None:
    model, _ = replace_downsampling(lively(small), "lps", padding="circular")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        y = model(x)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(x), y)
            links = {id(m) for m in twin.modules() if type(m).__name__ == "PhaseLink"}
            assert len(links) == 3
            assert not links & {id(m) for m in model.modules()}
        block: Any = model.layer2[0]
        compiled: Any = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=False)
        maps = torch.randn(2, 64, 8, 8)
        exported = torch.export.export(block, (maps,)).module()
        for run in (compiled, exported):
            assert torch.allclose(run(maps), block(maps), atol=1e-6)
        last = model(x.contiguous(memory_format=torch.channels_last))
        assert torch.allclose(last, y, atol=1e-4)


def test_tips_trains() -> None:
    model, _ = replace_downsampling(lively(small).train(), "tips")
    loss = model(torch.randn(2, 3, 64, 64)).square().mean() + tips_loss(model)
    torch.autograd.backward(loss)
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("pool", ["blur", "adaptive", "spectral"])
def test_cmod_stem_with_poolings_elsewhere(pool: str) -> None:
    model, report = replace_downsampling(lively(small), pool, stem="cmod")
    assert isinstance(model.conv1, WaveletStem)
    assert report.places[0].now == "WaveletStem"
    assert len(report) == 7
    assert report.places[0].stride == 4
    assert not report.exact
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 10)
    ordinary = str(model.conv1.pool)
    assert ("AdaptiveBlur" in ordinary, "MaxBlur" in ordinary) == (
        pool == "adaptive",
        pool == "blur",
    )


def test_options() -> None:
    base = lively(small)
    model, _ = replace_downsampling(base, "blur", max_kernel=2)
    assert model.maxpool.kernel_size == (2, 2)
    _, report = replace_downsampling(base, lambda channels: WaveletPool2d("db2"))
    assert {place.now for place in report if place.role != "stem"} == {"WaveletPool2d"}
    changed, _ = replace_downsampling(base, "spectral", inplace=True)
    assert changed is base
    assert isinstance(base.layer3[0].conv2.before, SpectralPool2d)
    # A pooling of stride 2 twice, where patches have stride 4.
    patches = lively(NETWORKS["convnext"][0])
    model, report = replace_downsampling(
        patches, lambda channels: PolyphasePool2d(), stem="full", padding="circular"
    )
    assert report.exact
    assert report.places[0].now == "Sequential"
    assert changes(model.double(), 3).max() < 1e-10
    learned, _ = replace_downsampling(nn.Sequential(nn.Identity(), lively(small)).half(), "lps")
    pools = [m for m in learned.modules() if isinstance(m, LearnedPolyphasePool2d)]
    assert {next(m.parameters()).dtype for m in pools} == {torch.float16}
    assert not any(m.training for m in learned[1].modules())
    report = replace_downsampling(small(), "aps")[1]
    assert "layer2.0.downsample.0  shortcut   stride 2" in str(report)


def test_cost() -> None:
    base = small()
    before = downsampling_cost(base, 64)
    assert before.parameters == sum(p.numel() for p in base.parameters())
    assert before.pool_macs == before.pool_parameters == 0
    # By hand: 4 x 4 taps at every pixel after the pooling.
    pooled = {64: 16 * 16, 128: 8 * 8, 256: 4 * 4, 512: 2 * 2}
    shortcuts = {64: 8 * 8, 128: 4 * 4, 256: 2 * 2}
    blurs = sum(16 * c * n for pixels in (pooled, shortcuts) for c, n in pixels.items())
    after = downsampling_cost(replace_downsampling(base, "blur")[0], 64)
    assert (after.parameters, after.pool_macs) == (before.parameters, blurs)
    full = downsampling_cost(replace_downsampling(base, "aps")[0], (64, 32))
    half = downsampling_cost(base, (64, 32))
    assert full.pool_macs == 0
    assert full.macs > half.macs + 3 * 3 * 64 * 49 * 32 * 16 - 1  # a stem of stride 1
    mixed = downsampling_cost(replace_downsampling(base, "tips")[0], 64)
    assert mixed.pool_parameters == 10 * (64 + 128 + 256 + 512 + 64 + 128 + 256)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.pool = nn.MaxPool2d(2)


def named(prefix: str) -> nn.Module:
    model = small()
    model.add_module("more", nn.Conv2d(3, 3, 3, (2, 2)) if prefix else nn.PixelUnshuffle(2))
    return model  # type: ignore[no-any-return]


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: replace_downsampling(Inception(), "blur"),
        ValueError,
        r"Inception subsamples in layers that are not known: conv \(Conv2d\), pool \(MaxPool2d\)",
    ),
    (
        lambda: replace_downsampling(named("x"), "blur"),
        ValueError,
        r"ResNet subsamples in layers that are not known: more \(Conv2d\)",
    ),
    (lambda: replace_downsampling(named(""), "blur"), ValueError, r"more \(PixelUnshuffle\)"),
    (
        lambda: replace_downsampling(small(), "max"),
        ValueError,
        "pool must be one of blur, aps, lps, tips, adaptive, spectral, wavelet, average or a func",
    ),
    (lambda: replace_downsampling(small(), lambda c: c), TypeError, "must make an nn.Module"),  # type: ignore[arg-type, return-value]
    (
        lambda: replace_downsampling(small(), lambda c: BlurPool2d(3)),
        ValueError,
        "pool makes a layer of stride 3 where the network has stride 2",
    ),
    (lambda: replace_downsampling(small(), "aps", stem="all"), ValueError, "stem must be one of"),
    (lambda: replace_downsampling(small(), "aps", padding="x"), ValueError, 'padding must be "ke'),
    (lambda: replace_downsampling(small(), "aps", max_kernel=0), ValueError, "max_kernel must be"),
    (
        lambda: replace_downsampling(small(), "aps")[0](torch.rand(1, 3, 66, 64)),
        ValueError,
        "33 x 32 pixels .* must be multiples of 2",
    ),
    (
        # As LoRA does, with convolutions that would not have the pooling.
        lambda: type(replace_downsampling(small(), "aps")[0].layer2[0].conv1)(4, 2, 3),
        TypeError,
        "PooledConv2d is made from a convolution .* leave this layer out",
    ),
    (lambda: downsampling_cost(nn.Identity()), ValueError, "Identity has no convolution"),
    (lambda: downsampling_cost(small(), 0), ValueError, "size must be an integer of at least 1"),
]


@pytest.mark.parametrize(("wrong", "error", "words"), WRONG)
def test_refusals(wrong: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        wrong()

"""Wavelet stems in the networks that people have."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402
from torch.nn.utils import prune  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from dtwpt.invariance import characterize  # noqa: E402
from dtwpt.nn.antialias import antialias_stem, restore_stem  # noqa: E402
from dtwpt.nn.blurring import blurred  # noqa: E402
from dtwpt.nn.downsampling import replace_downsampling  # noqa: E402
from dtwpt.nn.locate import find_stem  # noqa: E402
from dtwpt.nn.norm import EnergyNorm2d  # noqa: E402
from dtwpt.nn.pooling.max_blur import MaxBlurPool2d  # noqa: E402
from dtwpt.nn.stem import WaveletStem  # noqa: E402
from dtwpt.nn.surgery import replace_stem, stem_cost  # noqa: E402


def _transformers_resnet(classes: int = 10) -> Any:
    return transformers.ResNetForImageClassification(
        transformers.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=classes
        )
    )


NETWORKS: dict[str, Callable[[], Any]] = {
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "torchvision resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "torchvision resnext50": lambda: torchvision.models.resnext50_32x4d(num_classes=10),
    "torchvision alexnet": lambda: torchvision.models.alexnet(num_classes=10),
    "torchvision densenet": lambda: torchvision.models.DenseNet(4, (1, 1), 64, num_classes=10),
    "timm resnet18": lambda: timm.create_model("resnet18", num_classes=10),
    "timm resnet50": lambda: timm.create_model("resnet50", num_classes=10),
    "timm resnet50d": lambda: timm.create_model("resnet50d", num_classes=10),
    "timm resnetblur18": lambda: timm.create_model("resnetblur18", num_classes=10),
    "timm resnetaa50": lambda: timm.create_model("resnetaa50", num_classes=10),
    "transformers ResNet": _transformers_resnet,
}


def _stem(model: nn.Module, names: tuple[str, ...]) -> nn.Sequential:
    """Return the modules of a stem, in the order in which the network applies them."""
    return nn.Sequential(*[model.get_submodule(name) for name in names])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rest_of_the_network_gets_the_shape_that_it_got(name: str) -> None:
    model = NETWORKS[name]().eval()
    names = find_stem(model).names
    weight = find_stem(model).convolution.weight
    before = {key: value.clone() for key, value in model.state_dict().items()}
    costs = stem_cost(model)
    for operator in ("cmod", "rmax"):
        replaced = replace_stem(model, operator)
        stem = replaced.get_submodule(names[0])
        assert isinstance(stem, WaveletStem)
        assert stem.operator == operator
        assert not stem.training
        assert stem.free_channels == round(weight.shape[0] * 40 / 64) or name.endswith("50d")
        sizes = ((224, 224), (225, 225), (64, 64), (97, 97), (97, 130))
        for size in sizes if operator == "cmod" else sizes[2:]:
            x = torch.rand(1, 3, *size)
            with torch.no_grad():
                assert _stem(replaced, names)(x).shape == _stem(model, names)(x).shape
    assert stem_cost(replaced).parameters < costs.parameters
    # The original is as it was.
    assert find_stem(model).convolution.weight is weight
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_transform_pays_for_itself_in_stems_of_the_usual_width() -> None:
    for name in ("torchvision resnet18", "torchvision alexnet", "timm resnet50d"):
        model = NETWORKS[name]()
        before, after = stem_cost(model), stem_cost(replace_stem(model))
        assert after.parameters < before.parameters
        assert after.macs < before.macs or "alexnet" in name
    # 64 kernels of 7 x 7 in three colours, at 112 x 112 places, and the normalisation.
    assert stem_cost(NETWORKS["torchvision resnet18"]()) == (64 * 147 + 128, 64 * 147 * 112**2)


@pytest.mark.parametrize("operator", ["cmod", "rmax"])
def test_costs_are_what_torch_counts(operator: str) -> None:
    replaced = replace_stem(_resnet(), operator).eval()
    for counted, module in [
        (stem_cost(replaced, (97, 64)), replaced.conv1),
        (stem_cost(MaxBlurred(), (97, 64)), MaxBlurred().stem),
    ]:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module.eval()(torch.rand(1, 3, 97, 64))
        assert counted.macs == counter.get_total_flops() // 2 > 0
        assert counted.parameters == sum(p.numel() for p in module.parameters())


class MaxBlurred(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.ReLU(), MaxBlurPool2d(3, 2, 1))

    def forward(self, x: Any) -> Any:
        return self.stem(x)


@pytest.mark.parametrize(
    "name", ["torchvision resnet18", "torchvision alexnet", "timm resnet50d", "transformers ResNet"]
)
def test_networks_run_whole_and_training_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    model = replace_stem(NETWORKS[name]())
    side = 97 if "alexnet" in name else 64
    x, target = torch.rand(4, 3, side, side), torch.arange(4)

    def loss() -> Any:
        out = model(x)
        return nn.functional.cross_entropy(getattr(out, "logits", out), target)

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    stem = next(m for m in model.modules() if isinstance(m, WaveletStem))
    learned = {key: value.clone() for key, value in stem.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    first = loss()
    first.backward()
    optimiser.step()
    assert loss().item() < first.item()
    assert all(not torch.equal(value, learned[key]) for key, value in stem.named_parameters())


# The papers' layers -------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["cmod", "rmax"])
@pytest.mark.parametrize(
    ("build", "plain", "twin"),
    [
        (torchvision.models.alexnet, 61_100_840, 61_089_433),
        (torchvision.models.resnet34, 21_797_672, 21_794_171),
        (partial(torchvision.models.resnet18, num_classes=10), 11_181_642, 11_178_141),
        (partial(torchvision.models.resnet34, num_classes=10), 21_289_802, 21_286_301),
    ],
)
def test_the_papers_twins_have_their_numbers_of_parameters(
    operator: str, build: Any, plain: int, twin: int
) -> None:
    with torch.device("meta"):
        model = build()
    assert parameters(model) == plain
    with torch.device("meta"):
        assert parameters(replace_stem(model, operator, design="paper")) == twin


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "blur", "counts"),
    [
        (torchvision.models.resnet34, 3, (21_797_672, 21_794_171, 21_794_171)),
        (torchvision.models.resnet34, "adaptive", (22_711_064, 22_707_563, 22_682_237)),
        (
            partial(torchvision.models.resnet18, num_classes=10),
            "adaptive",
            (12_095_034, 12_091_533, 12_066_207),
        ),
        (torchvision.models.alexnet, 3, (61_100_840, 61_089_433, 61_089_433)),
    ],
)
def test_the_papers_blurred_twins_have_their_numbers_of_parameters(
    build: Any, blur: Any, counts: Any
) -> None:
    with torch.device("meta"):
        model = build()
        twins = [replace_stem(model, op, design="paper", blur=blur) for op in ("rmax", "cmod")]
        found = [parameters(blurred(network, blur)) for network in (model, *twins)]
    assert found == list(counts)


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_a_blurred_network_has_the_shapes_that_it_had(name: str) -> None:
    model = getattr(torchvision.models, name)(num_classes=4).eval()
    for blur in (3, "adaptive"):
        for network in (model, replace_stem(model, "rmax", design="paper", blur=blur)):
            stable = blurred(network, blur).eval()
            with torch.no_grad():
                assert stable(torch.rand(1, 3, 97, 97)).shape == (1, 4)
            assert not any(
                module.stride not in (1, (1, 1))
                for key, module in stable.named_modules()
                if isinstance(module, nn.MaxPool2d)
            )


def test_the_papers_resnet_layer() -> None:
    model = torchvision.models.resnet18(num_classes=4)
    stem = replace_stem(model, design="paper").conv1
    assert stem.free_channels == 40
    assert stem.analysis.mode == "zero"
    assert stem.bank.wavelet.name == "qshift_a"
    assert torch.allclose(stem.colour_mix.weight, torch.tensor([0.9802, 1.3060, 0.7138]))
    assert isinstance(stem.norm, EnergyNorm2d)
    atoms = stem.bank.atoms()
    places = [(atoms[list(g.packets)].tolist()[0][:3], g.channels) for g in stem.mixing.groups]
    assert places == PAPER_RESNET
    assert stem.penalty() == 0
    likeness = gabor_likeness(stem)
    assert len(likeness) == 24
    assert likeness.min() >= 0.95
    ours = gabor_likeness(replace_stem(model).conv1)
    assert ours.min() >= 0.95


PAPER_RESNET = [
    *(((s, y, x), 2) for s in (-1, 1) for y, x in ((0, 1), (1, 0), (1, 1))),
    *(((-1, y, x), 1) for y, x in ((0, 2), (1, 2), (2, 0), (2, 1))),
    ((-1, 2, 2), 2),
    *(((1, y, x), 1) for y, x in ((1, 2), (0, 2), (2, 1), (2, 0))),
    ((1, 2, 2), 2),
]


def gabor_likeness(stem: WaveletStem) -> Any:
    """Of the wavelet channels, colours added."""
    kernels = stem.resulting_kernel().detach()[: stem.out_channels - stem.free_channels]
    return characterize(kernels.sum(1).numpy())["gabor_likeness"]


def test_the_papers_alexnet_layer() -> None:
    model = torchvision.models.alexnet(num_classes=4)
    for operator in ("cmod", "rmax"):
        twin = replace_stem(model, operator, design="paper")
        stem = twin.features[0]
        assert stem.free_channels == 32
        assert stem.mixing.channels == [6, 18, 8]
        assert not any("Norm" in type(module).__name__ for module in twin.modules())
        assert not any("Norm" in type(m).__name__ for m in replace_stem(model).modules())
        atoms = stem.bank.atoms()
        sectors = []
        for group in stem.mixing.groups:
            own = atoms[list(group.packets)]
            sides = [sorted(set(own[name].tolist())) for name in ("sign", "row", "col")]
            sectors.append((*sides, group.channels))
            assert len(own) == len(sides[1]) * len(sides[2])
        low, high, wide, top = [0, 1], [2, 3], [0, 1, 2, 3], [4, 5, 6, 7]
        assert sectors == [
            *(([s], [y], [x], 1) for s in (-1, 1) for y, x in ((0, 1), (1, 0), (1, 1))),
            *(([s], y, x, 3) for s in (-1, 1) for y, x in ((low, high), (high, low), (high, high))),
            *(([s], y, x, 2) for s in (-1, 1) for y, x in ((wide, top), (top, wide))),
        ]
    assert stem.penalty([0, 4.1e-3, 3.2e-4]) > 0


def test_the_paper_has_no_other_layers() -> None:
    with pytest.raises(ValueError, match=r"of 64 channels .*, got 16 channels with stride 4"):
        replace_stem(_transformers_resnet(), design="paper")
    model = _resnet()
    with pytest.raises(ValueError, match='"paper" has its own free_channels'):
        replace_stem(model, design="paper", free_channels=3)
    with pytest.raises(ValueError, match=r"design must be .*, got 'mine'"):
        replace_stem(model, design="mine")


def test_the_kind_of_normalisation_is_kept() -> None:
    group = torchvision.models.resnet18(norm_layer=partial(nn.GroupNorm, 32))
    frozen = torchvision.models.resnet18(norm_layer=torchvision.ops.FrozenBatchNorm2d)
    for model, kind in ((group, nn.GroupNorm), (frozen, torchvision.ops.FrozenBatchNorm2d)):
        for design in ("dtwpt", "paper"):
            stem = replace_stem(model, design=design).conv1
            assert {type(stem.norm), type(stem.free[1])} == {kind}
            assert stem(torch.rand(1, 3, 64, 64)).shape == (1, 64, 16, 16)
    blurred = replace_stem(timm.create_model("resnetblur18"), "rmax").conv1
    assert isinstance(blurred.pool, MaxBlurPool2d)
    assert blurred.pool.blur == timm.create_model("resnetblur18").maxpool[1].filt_size


def test_modules_of_an_unknown_network_can_be_named() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.ModuleDict(
                {"a": nn.Conv2d(1, 16, 5, 2, 2), "b": nn.BatchNorm2d(16), "d": nn.MaxPool2d(2)}
            )
            self.last = nn.Conv2d(16, 4, 1)

        def forward(self, x: Any) -> Any:
            x = self.first["b"](self.first["a"](x)).relu()
            return self.last(self.first["d"](x))

    model = Network().double().eval()
    names: Any = {"conv": "first.a", "norm": "first.b", "pool": "first.d"}
    assert find_stem(model).names == tuple(names.values())
    model.first["e"] = nn.Conv2d(16, 16, 1)  # may be called after the pooling
    model.first["d"] = model.first.pop("d")
    with pytest.raises(ValueError, match=r"first\.e lie.*a \(Conv2d\).*name its modules: conv="):
        replace_stem(model)
    replaced = replace_stem(model, **names, blur=4, free_channels=4)
    assert replaced.first["a"].free_channels == 4
    for size in (64, 97, 131):
        x = torch.rand(2, 1, size, size, dtype=torch.float64)
        assert replaced(x).shape == model(x).shape
        assert replaced(x).dtype == torch.float64
    assert stem_cost(model, 64, **names).macs == 16 * 25 * 32**2
    # The network itself, if asked to.
    assert replace_stem(model, inplace=True, **names) is model
    assert isinstance(model.first["a"], WaveletStem)


def test_a_stem_is_found_within_a_module() -> None:
    model = nn.ModuleDict({"backbone": _resnet()})
    assert find_stem(model).names == tuple(
        f"backbone.{name}" for name in ("conv1", "bn1", "relu", "maxpool")
    )
    two = nn.ModuleDict({"a": model["backbone"], "b": _resnet()})
    with pytest.raises(ValueError, match="2 stems that look alike"):
        replace_stem(two)
    replaced: Any = replace_stem(two, conv="b.conv1", pool="b.maxpool")
    assert isinstance(replaced["b"].conv1, WaveletStem)


def test_mode_dtype_and_channels_follow_the_old_stem() -> None:
    model = timm.create_model("resnet18", in_chans=1, num_classes=3).double().eval()
    stem = replace_stem(model, free_channels=0).conv1
    assert (stem.in_channels, stem.out_channels, stem.training) == (1, 64, False)
    assert all(p.dtype == torch.float64 for p in stem.parameters())
    assert replace_stem(model.train()).conv1.training


# Compiling imports parts of torch that use what torch has deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_does_not_fit_is_refused() -> None:
    model = _resnet()
    with pytest.raises(ValueError, match=r"depth=3 has stride .* 8.*has a stride of 4 pixels"):
        replace_stem(model, depth=3)
    with pytest.raises(ValueError, match=r"has a stride of 1 pixels.*no power of two"):
        replace_stem(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), conv="0")
    with pytest.raises(ValueError, match="2 down and 4 across"):
        replace_stem(nn.Sequential(nn.Conv2d(3, 8, 3, (2, 4))), conv="0")
    with pytest.raises(ValueError, match=r"of \d+ x \d+ pixels these make"):
        replace_stem(model, pool_padding=0)
    with pytest.raises(ValueError, match=r"conv='conv2' is no module of ResNet.*conv1, bn1"):
        replace_stem(model, conv="conv2")
    with pytest.raises(ValueError, match=r"has no nn\.Conv2d"):
        replace_stem(model, conv="bn1")
    with pytest.raises(ValueError, match="conv must be named, too, if pool is"):
        replace_stem(model, pool="maxpool")
    with pytest.raises(ValueError, match="must be different modules"):
        replace_stem(model, conv="conv1", pool="conv1")
    with pytest.raises(ValueError, match=r"in VGG: features.1, .* lie between its first conv"):
        replace_stem(torchvision.models.vgg13(num_classes=2))
    with pytest.raises(TypeError, match="model must be a"):
        replace_stem("resnet18")  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"wrapped in DataParallel.*change model\.module"):
        replace_stem(nn.DataParallel(model))
    with pytest.raises(ValueError, match=r"wrapped in OptimizedModule.*model\._orig_mod"):
        replace_stem(torch.compile(model))
    with pytest.raises(ValueError, match="conv1 is a WaveletStem already"):
        replace_stem(replace_stem(model))
    with pytest.raises(ValueError, match=r"no pooling comes after its first conv.* features\.0\.0"):
        replace_stem(torchvision.models.mobilenet_v2())
    lazy = nn.Sequential(nn.LazyConv2d(8, 7, 4), nn.MaxPool2d(3, 2, 1))
    with pytest.raises(ValueError, match="0 is lazy: run the network on an image once"):
        replace_stem(lazy)
    with pytest.raises(ValueError, match="none within another, got"):
        replace_stem(model, conv="layer1", pool="layer1.0")
    with pytest.raises(ValueError, match="packets"):
        replace_stem(model, packets=[32])
    assert copy.deepcopy(model).conv1.weight.shape == (64, 3, 7, 7)


def test_synchronised_normalisation_stays_so() -> None:
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    converted = convert(_resnet())
    stem = replace_stem(converted).conv1
    assert stem.norm.sync
    assert isinstance(stem.free[1], nn.SyncBatchNorm)
    assert isinstance(replace_stem(converted, "rmax").conv1.norm, nn.SyncBatchNorm)
    assert not replace_stem(_resnet()).conv1.norm.sync
    deep = convert(timm.create_model("resnet26d"))
    deep.conv1[1].process_group = group = object()  # of some of the processes
    norm = replace_stem(deep).conv1.norm
    assert norm.sync
    assert norm.stats.process_group is group


def test_more_networks_that_are_refused() -> None:
    def block(channels: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, 8, 3, padding=1)
        return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    with pytest.raises(ValueError, match="stride of 2 pixels, so depth 1"):
        replace_stem(block(3))
    later = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), block(8))
    with pytest.raises(ValueError, match="no stem was recognised"):
        replace_stem(later)
    sharded = _resnet()
    sharded.__class__ = type("Sharded", (type(sharded), type("FSDPModule", (), {})), {})
    with pytest.raises(ValueError, match="sharded by fully_shard: change it before"):
        replace_stem(sharded)
    with pytest.raises(ValueError, match=r"^0\.net is wrapped in DataParallel: change"):
        replace_stem(nn.Sequential(nn.ModuleDict({"net": nn.DataParallel(block(3))})))


# Maps from amid the stem -------------------------------------------------------------------------


def _resnet() -> Any:
    """Return a network with the stem of the large ones."""
    resnet = torchvision.models.resnet
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)


class Wrapped(nn.Module):
    """A network whose use is told by a function."""

    def __init__(self, inner: Any, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.inner, self.function = inner, forward

    def forward(self, x: Any) -> Any:
        return self.function(self.inner, x)


def _stages(net: Any, x: Any) -> tuple[Any, Any]:
    early = net.relu(net.bn1(net.conv1(x)))
    return early, net.layer1(net.maxpool(early))


def _skip(net: Any, x: Any) -> Any:
    """As a U-Net does."""
    early, late = _stages(net, x)
    return torch.cat((early, nn.functional.interpolate(late, scale_factor=2)), 1).mean((2, 3))


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = _resnet()
        self.seen: dict[str, Any] = {}
        self.inner.maxpool.register_forward_pre_hook(lambda _, x: self.seen.update(early=x[0]))

    def forward(self, x: Any) -> Any:
        return self.inner(x), self.seen["early"]


def _features(**kwargs: Any) -> Any:
    return timm.create_model("resnet18", features_only=True, **kwargs)


getter = torchvision.models._utils.IntermediateLayerGetter
create = torchvision.models.feature_extraction.create_feature_extractor
HANDED_OUT: dict[str, Callable[[], nn.Module]] = {
    "timm list": _features,
    "timm list within": lambda: Wrapped(_features(), lambda net, x: net(x)),
    "timm hooks": lambda: _features(feature_cls="hook"),
    "timm getter": lambda: _features(feature_cls="getter"),
    "timm dict": lambda: _features(feature_cls="dict"),
    "timm fx": lambda: _features(feature_cls="fx"),
    "timm intermediates": lambda: Wrapped(
        timm.create_model("resnet18"), lambda net, x: net.forward_intermediates(x)
    ),
    "torchvision getter": lambda: getter(_resnet(), {"relu": "0", "layer1": "1"}),
    "torchvision extractor": lambda: create(_resnet(), {"bn1": "0", "layer1": "1"}),
    "tuple": lambda: Wrapped(_resnet(), _stages),
    "object": lambda: Wrapped(_resnet(), lambda net, x: SimpleNamespace(all=_stages(net, x))),
    "skip": lambda: Wrapped(_resnet(), _skip),
    "skip, then an error": lambda: Wrapped(_resnet(), lambda net, x: net.fc(_skip(net, x))),
    "own hook": Hooked,
}


@pytest.mark.parametrize("name", HANDED_OUT)
def test_networks_that_need_more_of_their_stem_are_refused(name: str) -> None:
    model = HANDED_OUT[name]()
    reason = "(returns|also uses elsewhere|takes) the output of .*would not be there any more"
    with pytest.raises(ValueError, match=reason):
        replace_stem(model)
    assert stem_cost(model) == stem_cost(_resnet())


@pytest.mark.parametrize(
    "change",
    [
        replace_stem,
        antialias_stem,
        lambda model: replace_downsampling(model, "aps")[0],
        lambda model: replace_downsampling(model, "lps", padding="circular")[0],
        lambda model: replace_downsampling(model, "blur", stem="full")[0],
    ],
)
def test_symbolic_tracing(change: Callable[[nn.Module], nn.Module]) -> None:
    changed, x = change(_resnet().eval()), torch.rand(2, 3, 64, 64)
    extract = create(changed, {"conv1": "first", "fc": "last"})
    for images in (x, torch.rand(3, 3, 96, 64)):  # the graph is of no one size
        found = extract(images)
        torch.testing.assert_close(found["last"], changed(images))
    assert found["first"].ndim == 4
    torch.testing.assert_close(torch.fx.symbolic_trace(changed)(x), changed(x))


def test_hooks_of_the_network_s_own_and_plain_references_are_refused() -> None:
    model = Wrapped(_resnet(), lambda net, x: net(x))
    model.inner.maxpool.register_forward_hook(model.__dict__.setdefault("seen", []).append)
    with pytest.raises(ValueError, match=r"hook of its own on inner\.maxpool"):
        replace_stem(model)
    held = Wrapped(_resnet(), lambda net, x: net(x))
    held.__dict__["layers"] = [held.inner.conv1]
    with pytest.raises(ValueError, match=r"Wrapped holds inner\.conv1 a second time, in layers"):
        replace_stem(held)


def test_networks_that_hand_out_later_maps_are_not() -> None:
    for model in (
        _features(out_indices=(1, 2, 3, 4)),
        getter(_resnet(), {"maxpool": "0", "layer1": "1"}),
        Wrapped(_resnet(), lambda net, x: _stages(net, x)[1]),
        # It does not take a batch; what is within does.
        Wrapped(_resnet(), lambda net, images: [net(image[None]) for image in images["many"]]),
    ):
        replaced, x = replace_stem(model).eval(), torch.rand(2, 3, 64, 97)
        given = {"many": x} if "many" in inspect.getsource(getattr(model, "function", _skip)) else x
        with torch.no_grad():
            before, after = model.eval()(given), replaced(given)
        shapes = [[t.shape for t in tree_leaves(out)] for out in (before, after)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize("change", [replace_stem, antialias_stem])
@pytest.mark.parametrize("name", ["resnet18", "resnet18d"])
def test_timm_s_intermediate_maps_are_of_the_sizes_that_the_network_says(
    change: Any, name: str
) -> None:
    """The first one comes after the pooling now, of which forward does not tell."""
    model = timm.create_model(name, num_classes=4).eval()
    changed = change(model)
    restored = restore_stem(changed) if change is antialias_stem else model
    for network, first in ((changed, 4), (restored, 2)):
        with torch.no_grad():
            maps = network.forward_intermediates(torch.rand(1, 3, 64, 96), intermediates_only=True)
        assert [entry["reduction"] for entry in network.feature_info] == [first, 4, 8, 16, 32]
        for entry, found in zip(network.feature_info, maps, strict=True):
            assert found.shape[2:] == (64 // entry["reduction"], 96 // entry["reduction"])


# Modules with several names or uses --------------------------------------------------------------


def test_a_stem_with_two_names_is_replaced_under_both() -> None:
    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = net = _resnet()
            self.first = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
            self.second = net.layer1

        def forward(self, x: Any) -> Any:
            return self.second(self.first(x))

    replaced = replace_stem(Unet())
    assert isinstance(replaced.first[0], WaveletStem)
    assert replaced.first[0] is replaced.encoder.conv1
    assert replaced(torch.rand(1, 3, 64, 64)).shape == (1, 64, 16, 16)


def test_modules_that_are_used_twice_are_refused() -> None:
    def net(**more: nn.Module) -> nn.ModuleDict:
        first = {"conv": nn.Conv2d(3, 16, 7, 2, 3), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2, 2)}
        return nn.ModuleDict(first | more)

    def stem(net: Any, x: Any) -> Any:
        return net["pool"](net["relu"](net["conv"](x)))

    again = Wrapped(net(), lambda n, x: n["relu"](stem(n, x) - 1))
    with pytest.raises(ValueError, match=r"calls inner\.relu 2 times and inner\.conv 1 times"):
        replace_stem(again)
    names: Any = {"conv": "inner.conv", "pool": "inner.pool"}
    assert replace_stem(again, **names)(torch.rand(1, 3, 64, 64)).min() >= 0
    pools = Wrapped(net(), lambda n, x: n["pool"](stem(n, x)))
    with pytest.raises(ValueError, match=r"calls inner\.pool 2 times"):
        replace_stem(pools)
    # All of them for each of two images.
    twice = Wrapped(net(), lambda n, x: stem(n, x) - stem(n, x.flip(3)))
    assert replace_stem(twice)(torch.rand(1, 3, 64, 64)).shape == (1, 16, 16, 16)
    unused = Wrapped(net(), lambda n, x: x.mean())
    with pytest.raises(ValueError, match=r"does not call inner\.conv"):
        replace_stem(unused)
    other = Wrapped(net(), lambda n, x: n["pool"](x))
    with pytest.raises(ValueError, match=r"inner\.pool is not applied to what inner\.conv gives"):
        replace_stem(other)
    padded = Wrapped(net(), lambda n, x: n["pool"](nn.functional.pad(n["conv"](x), (1,) * 4)))
    with pytest.raises(ValueError, match=r"size of the maps before inner\.pool"):
        replace_stem(padded, **names)
    shared = nn.ModuleDict({"a": _resnet(), "b": nn.ReLU()})
    shared["b"] = shared.get_submodule("a.relu")
    assert isinstance(replace_stem(shared)["a"].conv1, WaveletStem)  # it runs, and uses it once
    lost = net(other=nn.ReLU())
    lost["other"] = lost["relu"]
    with pytest.raises(ValueError, match="relu is also called other, and the network does not run"):
        replace_stem(lost)


# Families ----------------------------------------------------------------------------------------


def _detector() -> Any:
    return transformers.RTDetrForObjectDetection(transformers.RTDetrConfig())


FAMILIES: dict[str, tuple[Callable[[], Any], str]] = {
    "densenet121": (lambda: timm.create_model("densenet121"), "features.conv0 features.pool0"),
    "resnetv2_50": (lambda: timm.create_model("resnetv2_50"), "stem.conv stem.pool"),
    "resnetv2_50d": (lambda: timm.create_model("resnetv2_50d"), "stem"),
    "bit": (lambda: timm.create_model("resnetv2_50x1_bit"), "stem"),
    "seresnext": (lambda: timm.create_model("legacy_seresnext50_32x4d"), "layer0.conv1 pool0"),
    "senet154": (lambda: timm.create_model("legacy_senet154"), "layer0 pool0"),
    "dpn68": (lambda: timm.create_model("dpn68"), "features.conv1_1.conv features.conv1_pool"),
    "vovnet": (lambda: timm.create_model("ese_vovnet19b_dw"), "stem"),
    "cspresnet": (lambda: timm.create_model("cspresnet50"), "stem.conv1.conv stem.pool"),
    "nf_resnet": (lambda: timm.create_model("nf_resnet26"), "stem.conv stem.pool"),
    "resnetrs": (lambda: timm.create_model("resnetrs50"), "conv1 maxpool"),
    "googlenet": (
        lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False),
        "conv1.conv maxpool1",
    ),
    "shufflenet": (torchvision.models.shufflenet_v2_x0_5, "conv1.0 maxpool"),
    "squeezenet": (torchvision.models.squeezenet1_0, "features.0 features.2"),
    "rt-detr": (
        _detector,
        "model.backbone.model.embedder.embedder model.backbone.model.embedder.pooler",
    ),
    "children": (lambda: nn.Sequential(*_resnet().children()), "0 3"),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_recognised(name: str) -> None:
    make, ends = FAMILIES[name]
    with torch.device("meta"):
        model = make().eval()
    stem = find_stem(model)
    assert " ".join(dict.fromkeys((stem.names[0], stem.names[-1]))) == ends
    shapes = stem.output_shapes((64, 97, 224))
    replace_stem(model, inplace=True)
    assert isinstance(model.get_submodule(stem.conv), WaveletStem)
    assert stem.output_shapes((64, 97, 224)) == shapes


def test_timm_s_first_convolution_comes_before_a_guess() -> None:
    model: Any = nn.ModuleDict({"head": nn.Conv2d(3, 4, 1), "net": timm.create_model("resnet18")})
    assert find_stem(model).conv == "net.conv1"
    del model["net"].default_cfg
    with pytest.raises(ValueError, match="first convolution, head"):
        find_stem(model)
    for first in (["net.conv1"], ("net.conv1", "head")):  # of several branches
        model.default_cfg = {"first_conv": first}
        assert find_stem(model).conv == "net.conv1"
    model.default_cfg = {"first_conv": None}
    with pytest.raises(ValueError, match="first convolution, head"):
        find_stem(model)


# Weights that are computed, and hooks ------------------------------------------------------------


class Adapted(nn.Module):
    """A convolution with a low-rank addition, as peft wraps them."""

    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base_layer = base
        self.a = nn.ModuleDict({"default": nn.Conv2d(3, 2, 7, 2, 3, bias=False)})
        self.b = nn.ModuleDict({"default": nn.Conv2d(2, 64, 1, bias=False)})

    def forward(self, x: Any) -> Any:
        return self.base_layer(x) + self.b["default"](self.a["default"](x))


def _with(change: Callable[[Any], Any]) -> Any:
    model = _resnet()
    change(model)
    return model


def _fuse(model: Any) -> None:
    model.eval()
    model.conv1 = torch.nn.utils.fusion.fuse_conv_bn_eval(model.conv1, model.bn1)
    model.bn1 = nn.Identity()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "pruned": lambda m: prune.l1_unstructured(m.conv1, "weight", 0.3),  # type: ignore[no-untyped-call]
    "weight norm": lambda m: torch.nn.utils.parametrizations.weight_norm(m.conv1),
    "spectral norm by hooks": lambda m: torch.nn.utils.spectral_norm(m.conv1),
    "fused": _fuse,
    "adapted": lambda m: setattr(m, "conv1", Adapted(m.conv1)),
    "in place": lambda m: setattr(m, "act", nn.ReLU(inplace=True)),
    "frozen": lambda m: m.requires_grad_(False),
    "half": lambda m: m.bfloat16(),
    "forward of its own": lambda m: setattr(m, "forward", m._forward_impl),
}


@pytest.mark.parametrize("name", CHANGES)
def test_convolutions_are_called_and_not_read(name: str) -> None:
    model = _with(CHANGES[name])
    x = torch.rand(2, 3, 64, 64, dtype=model.fc.weight.dtype)
    model(x)  # weights that hooks compute are no leaves now
    replaced = replace_stem(model)
    assert isinstance(replaced.conv1, WaveletStem)
    assert replaced(x).shape == model(x).shape
    assert replaced(x).dtype == x.dtype
    assert stem_cost(model).macs > 0


def test_no_hook_is_run() -> None:
    def read(module: nn.Module, args: Any, out: Any = None) -> None:
        raise AssertionError(float(args[0].sum()))

    model = _resnet()
    for module in (model.conv1, model.relu, model.maxpool, model):
        module.register_forward_hook(read)
        module.register_forward_pre_hook(read)
    everywhere = nn.modules.module.register_module_forward_hook(read)
    try:
        assert isinstance(replace_stem(model).conv1, WaveletStem)
        assert stem_cost(model).macs > 0
    finally:
        everywhere.remove()


def test_features_are_taken_with_the_stem_as_a_whole() -> None:
    model = replace_stem(_resnet()).eval()
    leaves = {"leaf_modules": [WaveletStem]}
    features = create(model, {"layer2": "a"}, tracer_kwargs=leaves)
    assert features(torch.rand(1, 3, 64, 64))["a"].shape == (1, 128, 8, 8)

"""Wavelet stems in the networks that people have."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from dtwpt.nn.locate import find_stem  # noqa: E402
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
    "torchvision resnet34": lambda: torchvision.models.resnet34(num_classes=10),
    "torchvision resnet50": lambda: torchvision.models.resnet50(num_classes=10),
    "torchvision resnext50": lambda: torchvision.models.resnext50_32x4d(num_classes=10),
    "torchvision alexnet": lambda: torchvision.models.alexnet(num_classes=10),
    "torchvision densenet": lambda: torchvision.models.DenseNet(4, (1, 1), 64, num_classes=10),
    "timm resnet18": lambda: timm.create_model("resnet18", num_classes=10),
    "timm resnet34": lambda: timm.create_model("resnet34", num_classes=10),
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
        assert after.macs < before.macs
    # 64 kernels of 7 x 7 in three colours, at 112 x 112 places, and the normalisation.
    assert stem_cost(NETWORKS["torchvision resnet18"]()) == (64 * 147 + 128, 64 * 147 * 112**2)
    alone = WaveletStem()
    assert stem_cost(alone, (97, 64)).macs == alone.macs((97, 64))


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
    with pytest.raises(ValueError, match=r"first\.a \(Conv2d\).*name its modules: conv="):
        replace_stem(model)
    replaced = replace_stem(model, **names, free_pool="blur", free_channels=4)
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
    model = nn.ModuleDict({"backbone": torchvision.models.resnet18()})
    assert find_stem(model).names == tuple(
        f"backbone.{name}" for name in ("conv1", "bn1", "relu", "maxpool")
    )
    two = nn.ModuleDict({"a": model["backbone"], "b": torchvision.models.resnet18()})
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
    model = torchvision.models.resnet18()
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
    with pytest.raises(ValueError, match="conv must be named, too, where pool is"):
        replace_stem(model, pool="maxpool")
    with pytest.raises(ValueError, match="must be different modules"):
        replace_stem(model, conv="conv1", pool="conv1")
    with pytest.raises(ValueError, match=r"in VGG: looked for modules conv1, bn1, relu, maxpool"):
        replace_stem(torchvision.models.vgg13(num_classes=2))
    with pytest.raises(TypeError, match="model must be a"):
        replace_stem("resnet18")  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"wrapped in DataParallel.*change model\.module"):
        replace_stem(nn.DataParallel(model))
    with pytest.raises(ValueError, match=r"wrapped in OptimizedModule.*model\._orig_mod"):
        replace_stem(torch.compile(model))
    with pytest.raises(ValueError, match="no stem was recognised"):
        replace_stem(replace_stem(model))
    with pytest.raises(ValueError, match="packets"):
        replace_stem(model, packets=[32])
    assert copy.deepcopy(model).conv1.weight.shape == (64, 3, 7, 7)


def test_synchronised_normalisation_stays_so() -> None:
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    converted = convert(torchvision.models.resnet18())
    stem = replace_stem(converted).conv1
    assert stem.norm.sync
    assert isinstance(stem.free[1], nn.SyncBatchNorm)
    assert isinstance(replace_stem(converted, "rmax").conv1.norm, nn.SyncBatchNorm)
    assert not replace_stem(torchvision.models.resnet18()).conv1.norm.sync


def test_more_networks_that_are_refused() -> None:
    features = timm.create_model("resnet18", features_only=True)
    with pytest.raises(ValueError, match=r"returns the output of .*act1"):
        replace_stem(features)

    def block(channels: int) -> nn.Sequential:
        conv = nn.Conv2d(channels, 8, 3, padding=1)
        return nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(3, 2, 1))

    with pytest.raises(ValueError, match="stride of 2 pixels, so depth 1"):
        replace_stem(block(3))
    later = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), block(8))
    with pytest.raises(ValueError, match="no stem was recognised"):
        replace_stem(later)


def test_features_are_taken_with_the_stem_as_a_whole() -> None:
    create = torchvision.models.feature_extraction.create_feature_extractor
    model = replace_stem(torchvision.models.resnet18()).eval()
    leaves = {"leaf_modules": [WaveletStem]}
    features = create(model, {"layer2": "a"}, tracer_kwargs=leaves)
    assert features(torch.rand(1, 3, 64, 64))["a"].shape == (1, 128, 8, 8)

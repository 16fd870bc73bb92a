"""Put a pooling that is stable under shifts wherever a network subsamples."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from dtwpt.checks import as_count, as_pair
from dtwpt.nn.downsampling_layers import (
    FollowingPool2d,
    LeadingPool2d,
    PhaseLink,
    Pooled2d,
    PooledConv2d,
    PooledMax2d,
)
from dtwpt.nn.downsampling_places import Place, find_places, own_stem
from dtwpt.nn.downsampling_pools import EXACT, Pool, make_pool
from dtwpt.nn.downsampling_report import DownsamplingReport, ReplacedPlace, obstacles
from dtwpt.nn.locate import copied, refuse_wrapper
from dtwpt.nn.pooling.polyphase import Polyphase
from dtwpt.nn.surgery import replace_stem

__all__ = ["replace_downsampling"]

Model = TypeVar("Model", bound=nn.Module)

# Roles that each choice of a stem keeps; "cmod" has replaced them by then.
_KEPT = {"keep": ("stem", "stem pool"), "pool": ("stem",), "full": (), "cmod": ()}


def replace_downsampling(
    model: Model,
    pool: Pool,
    *,
    stem: str | None = None,
    padding: str = "keep",
    max_kernel: int | None = None,
    inplace: bool = False,
) -> tuple[Model, DownsamplingReport]:
    """Put a pooling that is stable under shifts wherever a network subsamples.

    A strided convolution gets stride 1, and the next one pooled maps; max pooling gets stride 1 and
    is followed by the pooling; average pooling is replaced. In a residual block a polyphase pooling
    chooses one phase for both branches.

    Parameters
    ----------
    model : torch.nn.Module
        A ResNet, ResNeXt, VGG, MobileNetV2, DenseNet or ConvNeXt of torchvision or timm, or a
        network that contains one; also timm's EfficientNets that are padded as torch pads.
    pool : {"blur", "aps", "lps", "tips", "adaptive", "spectral", "wavelet", "average"} or callable
        Which pooling: :class:`BlurPool2d`, :class:`PolyphasePool2d`,
        :class:`LearnedPolyphasePool2d` with an eighth of the channels between its convolutions,
        :class:`MixedPolyphasePool2d`, :class:`AdaptiveBlurPool2d`, :class:`SpectralPool2d`,
        :class:`WaveletPool2d`, :class:`torch.nn.AvgPool2d`; or a function that makes a layer of
        stride 2 for a number of channels, which is applied twice where the stride is 4.
    stem : {"keep", "pool", "full", "cmod"}, optional
        The first layer: "keep" leaves it as it is; "pool" replaces its max pooling and keeps its
        strided convolution; "full" replaces both; "cmod" puts a :class:`WaveletStem` there, whose
        ordinary channels blur if ``pool`` is "blur" or "adaptive". Default: that of the
        publications, "full" for "aps" and "lps", "pool" for the others.
    padding : {"keep", "circular"}
        "circular": pad convolutions and windows of maxima circularly, as exactness needs.
    max_kernel : int, optional
        Window of the maxima instead of the network's; 2 in the published forms.
    inplace : bool, default: False
        Change ``model`` itself, not a copy.

    Returns
    -------
    model : torch.nn.Module
        The network. It loads the state dicts of the original, without which poolings keep their
        parameters; not so with ``stem="cmod"``.
    report : DownsamplingReport
        Every place where the network subsamples, and the obstacles to exactness.

    Raises
    ------
    TypeError, ValueError
        If the network is not supported (the message names its layers), or an argument does not fit.

    See Also
    --------
    downsampling_cost : parameters and multiply-accumulates, before and after.

    Notes
    -----
    Published networks differ in more than the pooling: maxima over 2 x 2 with "blur", "aps" and
    "lps", none with "tips", "spectral" and "wavelet", a first convolution of 3 x 3 with "tips".
    Here all keep what they have, so that networks can be compared. With ``stem="full"`` the pooling
    of the first convolution comes after its normalisation and activation.

    Examples
    --------
    >>> from torch import nn
    >>> from dtwpt.nn import replace_downsampling
    >>> class ResNet(nn.Sequential):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv1 = nn.Conv2d(3, 8, 3, 2, 1)
    ...         self.bn1 = nn.BatchNorm2d(8)
    ...         self.maxpool = nn.MaxPool2d(3, 2, 1)
    >>> model, report = replace_downsampling(ResNet(), "aps", padding="circular")
    >>> print(report)
    conv1    stem       stride 2  PolyphasePool2d
    maxpool  stem pool  stride 2  PolyphasePool2d
    >>> report.exact
    True
    """
    if stem is None:
        stem = "full" if pool in EXACT else "pool"
    if stem not in _KEPT:
        raise ValueError(f"stem must be one of {', '.join(_KEPT)}, got {stem!r}")
    if padding not in ("keep", "circular"):
        raise ValueError(f'padding must be "keep" or "circular", got {padding!r}')
    if max_kernel is not None:
        max_kernel = as_count(max_kernel, "max_kernel")
    make_pool(pool, 8, 2, False)  # wrong arguments raise before anything is changed
    refuse_wrapper(model)
    circular = padding == "circular"
    places = find_places(model)
    if not inplace:
        model = copied(model)
    done = []
    if stem == "cmod":
        blur: Any = {"blur": 4, "adaptive": "adaptive"}.get(pool if isinstance(pool, str) else "")
        options = {"blur": blur} if blur else {}
        mode = "periodic" if circular else "symmetric"
        model = replace_stem(model, "cmod", inplace=True, mode=mode, **options)
        stride = 2 ** getattr(model.get_submodule(own_stem(model) or ""), "depth", 0)
        done = [ReplacedPlace(own_stem(model) or "", "stem", stride, "WaveletStem")]
        places = find_places(model)
    kept = [place for place in places if place.role in _KEPT[stem]]
    replaced = [place for place in places if place not in kept]
    _prepare(model, replaced, circular, max_kernel)
    layers = _layers(pool, replaced, circular)
    like = next((p for p in model.parameters() if p.is_floating_point()), None)
    for place in places:
        now, leader = "kept", None
        if place in replaced:
            layer = layers[place.name]
            inner: Any = layer
            if isinstance(layer, (LeadingPool2d, FollowingPool2d)):
                inner = layer.pool
                leader = place.leader
            now = type(inner).__name__
            holder = model.get_submodule(place.at)
            layer.train(holder.training)
            if like is not None:
                layer.to(like.device, like.dtype)
            setattr(holder, _side(place), layer)
        done.append(ReplacedPlace(place.name, place.role, place.stride, now, leader))
    return model, DownsamplingReport(tuple(done), obstacles(model, done))


def _side(place: Place) -> str:
    return "before" if place.side == "before" else "after"


def _layers(pool: Pool, places: list[Place], circular: bool) -> dict[str, nn.Module]:
    """Return the layer of each place; polyphase poolings of one block share their phase."""
    layers: dict[str, nn.Module] = {}
    leaders: dict[str, tuple[Polyphase, PhaseLink]] = {}
    followed = {place.leader for place in places}
    for place in places:
        layer: nn.Module
        if place.leader in leaders:
            layer = FollowingPool2d(*leaders[place.leader])
        else:
            layer = make_pool(pool, place.channels, place.stride, circular)
            if isinstance(layer, Polyphase) and place.name in followed:
                leaders[place.name] = layer, PhaseLink()
                layer = LeadingPool2d(*leaders[place.name])
        layers[place.name] = layer
    return layers


def _prepare(model: nn.Module, places: list[Place], circular: bool, max_kernel: int | None) -> None:
    """Insert the layers that hold poolings, have stride 1 or are padded circularly."""
    gone = {place.name for place in places}
    holders = {place.at: place for place in places}
    stem = own_stem(model)
    for name, module in list(model.named_modules()):
        if stem and (name + ".").startswith(stem + "."):
            continue
        holds = holders.get(name)
        if isinstance(module, nn.Conv2d):
            around = circular and (any(module.padding) or name in gone)
            if name in gone or holds or around:
                if type(module) is not nn.Conv2d:
                    raise ValueError(
                        f"{name} is a {type(module).__name__}: only convolutions of torch itself "
                        "are known"
                    )
                model.set_submodule(name, _convolution(module, name in gone, around))
        elif isinstance(module, nn.MaxPool2d) and (holds or (circular and _moves(module))):
            made = _maximum(module, circular, max_kernel)
            model.set_submodule(name, made.train(module.training))
        elif holds:
            model.set_submodule(name, Pooled2d().train(module.training))


def _moves(pool: nn.MaxPool2d) -> bool:
    """Whether maxima are of stride 1: a shift then changes only their borders."""
    return pool.stride in (1, (1, 1)) and pool.kernel_size not in (1, (1, 1))


def _convolution(conv: nn.Conv2d, plain: bool, circular: bool) -> PooledConv2d:
    made = PooledConv2d.of(conv)
    if plain:
        made.stride = (1, 1)
    if circular:
        made.make_circular()
    return made


def _maximum(pool: nn.MaxPool2d, circular: bool, max_kernel: int | None) -> PooledMax2d:
    kernel = as_pair(pool.kernel_size if max_kernel is None else max_kernel, "max_kernel")
    padding = as_pair(pool.padding, "padding", 0)
    if max_kernel is not None:
        padding = min(padding[0], (kernel[0] - 1) // 2), min(padding[1], (kernel[1] - 1) // 2)
    stride = as_pair(pool.stride, "stride") if pool.ceil_mode else None
    return PooledMax2d(kernel, padding, stride, circular)

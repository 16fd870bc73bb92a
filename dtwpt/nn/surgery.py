"""Put a wavelet stem into an existing network."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dtwpt.checks import as_depth, as_pair
from dtwpt.nn.antialiased import AntialiasedStem
from dtwpt.nn.locate import Stem, copied, find_stem, refuse_wrapper, set_reduction
from dtwpt.nn.pooling.max_blur import MaxBlurPool2d
from dtwpt.nn.probe import shape_only
from dtwpt.nn.selection import Packets
from dtwpt.nn.stem import WaveletStem
from dtwpt.nn.twins import paper_options

__all__ = ["StemCost", "replace_stem", "stem_cost"]

Model = TypeVar("Model", bound=nn.Module)

# A stem must have the output shape of the one it replaces for images of each size up to this and
# three strides: both rules repeat after one stride, once images are larger than the windows.
_LARGER_THAN_WINDOWS = 32
# The paper's share of ordinary channels: 40 of 64.
_FREE_SHARE = 40 / 64
# Pooling windows (kernel, padding) to try in turn if a stem has no max pooling of its own.
_WINDOWS = ((3, 1), (2, 0), (3, 0))


class StemCost(NamedTuple):
    """Cost of a stem: learned parameters, and multiply-accumulates for one image."""

    parameters: int
    macs: int


def replace_stem(
    model: Model,
    operator: str = "cmod",
    *,
    design: str = "dtwpt",
    free_channels: int | None = None,
    packets: Packets | None = None,
    colour: str | Sequence[float] | None = None,
    depth: int | None = None,
    conv: str | None = None,
    norm: str | None = None,
    act: str | None = None,
    pool: str | None = None,
    inplace: bool = False,
    **options: Any,
) -> Model:
    """Put a :class:`WaveletStem` in place of a network's first layer.

    In place of convolution, normalisation, activation and max pooling; ``Identity`` replaces those
    after the convolution. The output has the same shape for every size of image, so that the rest
    of the network fits as it is. The new stem is not trained.

    Parameters
    ----------
    model : torch.nn.Module
        A network whose first convolution is followed by a pooling, with a normalisation and an
        activation between them at most, or whose first convolutions are in a module of their own,
        which is replaced whole: ResNets, AlexNet, DenseNet and others of torchvision, timm and
        transformers. Any other network with its modules named.
    operator : {"cmod", "rmax"}
        As in :class:`WaveletStem`.
    design : {"dtwpt", "paper"}
        "paper": the twin layers of ResNets and of AlexNet exactly as their authors have them [1]_:
        packets and groups, filters, zero padding, a learned colour mix, and a learned scale of each
        channel. "dtwpt": the defaults of :class:`WaveletStem` (filters qshift_b, mirrored borders,
        luma), more stable where they were measured. Either way each channel of a ResNet is a
        single packet.
    free_channels : int, optional
        Ordinary channels. Default: 40 of 64, or as close to that share as possible.
    packets : {"gabor", "all"} or iterable of int, optional
        As in :class:`WaveletStem`.
    colour : {"luma", "mix", "rank1", "none"} or sequence of float, optional
        As in :class:`WaveletStem`.
    depth : int, optional
        Stages of the transform; default: the one with the stride of the stem, 2 for 4, 3 for 8.
    conv, norm, act, pool : str, optional
        Dotted names of the modules, such as "backbone.conv1", for a network that is not
        recognised. Those that are not named are not replaced. ``conv`` may be a ``Sequential`` of
        several convolutions.
    inplace : bool, default: False
        Change ``model`` itself, not a copy.
    **options
        Further options of :class:`WaveletStem`. Those of the convolution and the pooling are
        those of the stem that is replaced, if it has one convolution and ``MaxPool2d``, and so is
        the kind of its normalisation: ``norm`` here is a name, and a stem without normalisation
        gets none. ``blur`` is that of the stem's pooling if it has a ``BlurPool``.

    Returns
    -------
    torch.nn.Module
        The network with its new stem, in the mode, on the device and of the dtype of the old one.
        Optimisers created for ``model`` do not hold its parameters.

    Raises
    ------
    TypeError, ValueError
        If no stem is recognised, the network needs more of it than its output (a map between
        activation and pooling that is returned, a module that is used twice), depth does not fit
        its stride, no wavelet stem has its output shape, the paper has no such layer, or an
        argument does not fit.

    References
    ----------
    .. [1] H. Leterme, K. Polisano, V. Perrier, K. Alahari, "From CNNs to Shift-Invariant Twin
       Models Based on Complex Wavelets", arXiv 2212.00394.

    See Also
    --------
    antialias_stem : for a network that is trained, without training.
    stem_cost : parameters and multiply-accumulates, before and after.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from dtwpt.nn import replace_stem, stem_cost
    >>> model = nn.Sequential(
    ...     nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
    ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    >>> stable = replace_stem(model)
    >>> stable(torch.rand(2, 3, 224, 224)).shape
    torch.Size([2, 10])
    >>> stem_cost(stable).macs < stem_cost(model).macs
    True
    """
    found = find_stem(model, conv, norm, act, pool)
    depth = _depth(found, depth)
    sizes = range(1, _LARGER_THAN_WINDOWS + 3 * 2**depth + 1)
    shapes = found.output_shapes(sizes)
    channels = next((shape[0] for shape in shapes if shape), 0)
    first = found.convolution
    given = {"free_channels": free_channels, "packets": packets, "colour": colour}
    options |= {name: value for name, value in given.items() if value is not None}
    if design == "paper":
        fixed = {"free_channels", "packets", "groups", "channels_per_scale"} & options.keys()
        if fixed:
            raise ValueError(f'design="paper" has its own {", ".join(sorted(fixed))}')
        options = paper_options(depth, channels, first.in_channels) | options
    elif design != "dtwpt":
        raise ValueError(f'design must be "dtwpt" or "paper", got {design!r}')
    options.setdefault("free_channels", min(round(_FREE_SHARE * channels), channels - 1))
    options.setdefault("blur", _blur(found))
    options["norm"] = _normalisation(found)
    old = [module for name in found.names for module in model.get_submodule(name).modules()]
    synchronised = next((module for module in old if isinstance(module, nn.SyncBatchNorm)), None)
    if depth == 1 and packets in (None, "gabor") and "groups" not in options:
        raise ValueError(
            f"the stem {', '.join(found.names)} has a stride of 2 pixels, so depth 1, at which "
            'there are no "gabor" packets: give packets="all", or name the modules of a stem with '
            "a larger stride"
        )
    attempts: list[WaveletStem] = []
    for window in _windows(found, options):
        stem = WaveletStem(
            first.in_channels,
            channels,
            depth,
            operator,
            **window | options,
        )
        attempts.append(stem)
        if all(shape is None or _gives(stem, n, shape) for n, shape in enumerate(shapes, 1)):
            break
    else:
        raise ValueError(_misfit(found, attempts[0], shapes))
    if not inplace:
        model = copied(model)
        found = Stem(model, found.conv, found.norm, found.act, found.pool)
    if synchronised is not None:
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
        stem = convert(stem, synchronised.process_group)
    stem.to(found.reference.device, found.reference.dtype).train(first.training)
    found.put(stem)
    set_reduction(model, found.names[:-1], 2**depth)
    return model


def stem_cost(
    model: nn.Module,
    size: int | tuple[int, int] = 224,
    *,
    conv: str | None = None,
    norm: str | None = None,
    act: str | None = None,
    pool: str | None = None,
) -> StemCost:
    """Count parameters and multiply-accumulates of a network's first layer.

    Parameters
    ----------
    model : torch.nn.Module
        As for :func:`replace_stem`, before or after it or :func:`antialias_stem`; or a stem.
    size : int or (int, int), default: 224
        Rows and columns of the image.
    conv, norm, act, pool : str, optional
        Dotted names of the modules, for a network that is not recognised.

    Returns
    -------
    StemCost
        ``parameters``: all learned parameters, including those of normalisation; ``macs``:
        multiply-accumulates for one image, half of what
        ``torch.utils.flop_counter.FlopCounterMode`` counts.

    Raises
    ------
    TypeError, ValueError
        If no stem is recognised, or an argument does not fit.

    Examples
    --------
    >>> from dtwpt.nn import WaveletStem, stem_cost
    >>> stem_cost(WaveletStem(free_channels=0)).parameters < 1200
    True
    """
    from torch.utils.flop_counter import FlopCounterMode

    import dtwpt.engine.torch_flops  # noqa: F401 - counts our operators

    rows, columns = as_pair(size, "size")
    refuse_wrapper(model)
    ours = (m for m in model.modules() if isinstance(m, (WaveletStem, AntialiasedStem)))
    module: nn.Module | None = next(ours, None)
    if module is None:
        stem = find_stem(model, conv, norm, act, pool, replaceable=False)
        module = nn.Sequential(*[model.get_submodule(name) for name in stem.names])
    channels: Any = next(m.in_channels for m in module.modules() if hasattr(m, "in_channels"))
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    # Not on "meta": what is computed may depend on the device.
    with torch.no_grad(), FakeTensorMode(), FlopCounterMode(display=False) as counter:
        shape = 1, channels, rows, columns
        image = torch.empty(shape, dtype=like.dtype, device=like.device)
        shape_only(module, like.device)(image)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return StemCost(parameters, counter.get_total_flops() // 2)


def _depth(stem: Stem, depth: Any) -> int:
    """Return the depth whose stride is the stem's."""
    down, across = stem.strides()
    if down != across:
        raise ValueError(
            "a wavelet stem has one stride, and the stem "
            f"{', '.join(stem.names)} has {down:g} down and {across:g} across"
        )
    named = f"the stem {', '.join(stem.names)} has a stride of {down:g} pixels"
    if depth is not None:
        given = as_depth(depth)
        if 2**given != down:
            raise ValueError(f"depth={given} has stride 2**depth = {2**given}, and {named}")
        return given
    fitting: int | None = next((j for j in range(1, 6) if 2**j == down), None)
    if fitting is None:
        raise ValueError(f"{named}, which is no power of two from 2 to 32; was a module left out?")
    return fitting


def _windows(stem: Stem, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Return options for convolution and pooling, the likeliest first."""
    conv, pool = stem.module(stem.conv), stem.module(stem.pool)
    kernels: dict[str, Any] = {}
    if isinstance(conv, nn.Conv2d) and not isinstance(conv.padding, str):
        sides, paddings = set(conv.kernel_size), set(conv.padding)
        if len(sides) == len(paddings) == 1 and set(conv.dilation) == {1}:
            kernels = {"kernel_size": sides.pop(), "padding": paddings.pop()}
    if type(pool) is nn.MaxPool2d and isinstance(pool.kernel_size, int):
        own = {
            "pool_kernel": pool.kernel_size,
            "pool_padding": pool.padding,
            "ceil_mode": pool.ceil_mode,
        }
        return [kernels | own, own]
    found = [{"pool_kernel": kernel, "pool_padding": padding} for kernel, padding in _WINDOWS]
    return [kernels | window for window in found] + found if kernels else found


def _gives(stem: WaveletStem, n: int, shape: tuple[int, int, int]) -> bool:
    height, width = stem.output_size(n, n)
    cells = -(-n // 2**stem.depth)
    return (height, width) == shape[1:] and max(height, width) <= cells


def _normalisation(stem: Stem) -> Any:
    """Return the ``norm`` of a wavelet stem that matches the stem it replaces."""
    last: Any = None
    for name in stem.names:
        for module in stem.model.get_submodule(name).modules():
            if "Norm" in type(module).__name__:
                last = module
    if last is None:
        return "none"
    if isinstance(last, nn.modules.batchnorm._BatchNorm):
        return "energy"
    if isinstance(last, nn.GroupNorm):
        groups, eps, affine = last.num_groups, last.eps, last.affine
        return lambda channels: nn.GroupNorm(gcd(groups, channels), channels, eps, affine)
    return type(last)  # such as FrozenBatchNorm2d: made for a number of channels


def _blur(stem: Stem) -> int | None:
    """Return the taps of the blur in a stem's pooling."""
    if stem.pool is None:
        return None
    for module in stem.model.get_submodule(stem.pool).modules():
        if "BlurPool" in type(module).__name__:
            taps: Any = module.blur if isinstance(module, MaxBlurPool2d) else module.filt_size
            return int(taps)
    return None


def _misfit(found: Stem, stem: WaveletStem, shapes: list[tuple[int, int, int] | None]) -> str:
    n, shape = next(
        (n, shape)
        for n, shape in enumerate(shapes, 1)
        if shape is not None and not _gives(stem, n, shape)
    )
    height, width = stem.output_size(n, n)
    return (
        f"no wavelet stem of depth {stem.depth} has the output shape of "
        f"{', '.join(found.names)}: of {n} x {n} pixels these make {shape[1]} x {shape[2]}, "
        f"and a wavelet stem makes {height} x {width} of at most {-(-n // 2**stem.depth)} x "
        f"{-(-n // 2**stem.depth)}; kernel_size, padding, pool_kernel, pool_padding and ceil_mode "
        "can be given"
    )

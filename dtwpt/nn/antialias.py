"""Strided layers of a trained network averaged over small shifts: antialias_stem."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dtwpt.nn.antialiased import AntialiasedStem, ShiftAverage, as_weights, moved
from dtwpt.nn.calls import Call, all_names, example_output
from dtwpt.nn.locate import Stem, copied, find_stem, refuse_wrapper, set_reduction
from dtwpt.nn.refit import Fitted, Target, can_refit, refit
from dtwpt.nn.renorm import Renormed, has_statistics, renorm
from dtwpt.nn.replaceable import check_replaceable, check_same_shapes

__all__ = ["antialias_stem", "restore_stem"]

Model = TypeVar("Model", bound=nn.Module)

# These commute with averaging, so they can stay in place for other callers.
_IDEMPOTENT = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
_LATER_WEIGHTS = (1, 4, 1)


def antialias_stem(
    model: Model,
    images: Any = None,
    *,
    layers: str = "stem",
    correction: str = "fit",
    weights: Any = None,
    reach: int | None = None,
    threshold: float | None = None,
    colour_threshold: float | None = None,
    conv: str | None = None,
    norm: str | None = None,
    act: str | None = None,
    pool: str | None = None,
    inplace: bool = False,
) -> Model:
    r"""Make a trained network more stable under shifts, without training.

    The first layer's own output is averaged over small shifts of the image, which
    :class:`ShiftAverage` does at the cost of the convolution at stride 1. With a few unlabelled
    images, the convolutions that follow are corrected by least squares, or the statistics of the
    batch normalisations that follow are estimated again.

    Parameters
    ----------
    model : torch.nn.Module
        As for :func:`replace_stem`; with its modules named, any network. A pooling of any kind, or
        none, and several convolutions in sequence will do.
    images : Tensor (N, C, H, W) or iterable of batches, optional
        Some dozens of images of one size, preprocessed for the network, such as a short
        ``DataLoader``. Of a batch that is a tuple or list the first item counts, of a mapping
        "pixel_values". No labels, no gradients.
    layers : {"stem", "all"}, default: "stem"
        Layers to average. "stem": the first layer, and the convolutions up to the next strided one
        are fitted. "all": also every strided convolution after it, by weights (1, 4, 1) in pixels
        of its input, and all convolutions are fitted; needs images.
    correction : {"fit", "norms"}, default: "fit"
        What images are used for. "fit": the convolutions after the changed layer are fitted, one
        after another, to give for slightly shifted images what they gave in the original network
        for unshifted ones. The images go through the network in one batch, and all maps of the
        original one are kept: about the memory of a training step. "norms": mean and variance of
        the batch normalisations after the changed layer become those of the images, batches of up
        to 64, as ``torch.optim.swa_utils.update_bn`` estimates them; give some hundreds.
    weights : sequence of float, optional
        Weights of the shifts along an axis of the image for the first layer, an odd number.
        Default: (1, 4, 6, 4, 1). Wider ones make the network more stable and its output less like
        the original's.
    reach : int, optional
        In place of weights: binomial ones of the shifts -reach to reach.
    threshold, colour_threshold : float, optional
        Deprecated, without effect: every channel is averaged.
    conv, norm, act, pool : str, optional
        Dotted names of the modules, for a network that is not recognised.
    inplace : bool, default: False
        Change ``model`` itself, not a copy.

    Returns
    -------
    torch.nn.Module
        The network, with an :class:`AntialiasedStem` where its convolution was and ``Identity``
        in place of normalisation and pooling. :func:`restore_stem` undoes it.

    Raises
    ------
    TypeError, ValueError
        If no stem is recognised, a part of it is used elsewhere in the network, or an argument does
        not fit.

    Notes
    -----
    Parts that are known by several names are replaced under all of them. The network is run for
    its shapes to find whether a map from within the layer is used elsewhere, and called with the
    first image, or with noise, in eval mode and without forward hooks, to compare the shapes of
    what it returns; these are not checked if it fails.

    Fitted are plain ``Conv2d`` modules that are called once. If a convolution has no bias, the
    fitted offset goes into the running mean of the batch normalisation after it. A saved state dict
    fits the network that ``antialias_stem`` makes of the original without images.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from dtwpt.nn import antialias_stem
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)).eval()
    >>> stable = antialias_stem(model, reach=1)
    >>> stable[0]
    AntialiasedStem(
      weights=(0.25, 0.5, 0.25), stride=(4, 4), 0 convolutions refitted
      (conv): Conv2d(1, 2, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3))
      (act): ReLU()
      (pool): MaxPool2d(kernel_size=3, stride=2, padding=1, dilation=1, ceil_mode=False)
    )
    >>> x = torch.rand(1, 1, 64, 64)
    >>> stable(x).shape == model(x).shape
    True
    """
    _check_choices(layers, correction, images is not None)
    _warn_of_old(threshold=threshold, colour_threshold=colour_threshold)
    if weights is None and reach is None:
        reach = 2
    weights = as_weights(weights, reach)
    found = find_stem(model, conv, norm, act, pool, replaceable=False)
    stays = type(found.module(found.act)) in _IDEMPOTENT
    check_replaceable(found, found.act if stays else None)
    if images is not None:
        if found.reference.is_meta:
            raise ValueError("images need a network with weights, and this one is on device meta")
        batches = list(_batches(images, found.convolution))
        if not batches:
            raise ValueError("images must hold at least one image, got none")
        images = torch.cat(batches)
    first = None if images is None else images[:1]
    image, before, calls = example_output(model, found.convolution.in_channels, first)
    start = max((k for k, call in enumerate(calls) if call.name in found.names), default=0)
    later = calls[start + 1 :]
    if correction == "norms":
        _check_norms(model, later)
    original = model
    if not inplace:
        model = copied(model)
        found = Stem(model, found.conv, found.norm, found.act, found.pool)
    elif images is not None:
        original = copied(model)
    stem = AntialiasedStem(
        found.model.get_submodule(found.conv),
        *(found.module(name) for name in (found.norm, found.act, found.pool)),
        weights=weights,
    )
    _put(model, stem)
    set_reduction(model, found.names[:-1], stem.stride[0])
    if image is not None:
        try:
            check_same_shapes(model, image, before)
        except ValueError:
            _take_out(model, stem)
            set_reduction(model, found.names[:-1], stem.first[0])
            raise
    if images is not None:
        # Before later layers are averaged, which changes names.
        norms = _norms(model, later)
        targets = _average_later(original, model, calls, later, layers == "all")
        if correction == "fit":
            stem.refitted = refit(original, model, targets, images, _slightly_moved(images))
        else:
            stem.renormed = renorm(model, norms, images)
    return model


def restore_stem(model: Model, *, inplace: bool = False) -> Model:
    """Undo :func:`antialias_stem`: put the layers' own modules back where they were.

    The network then has the names, and the state dict, of the original. Convolutions that were
    fitted get their former weights back, and batch normalisations their former statistics, unless
    the network has since been loaded from a state dict, which does not hold them: then load the
    original's, too. All other weights keep their present values.

    Parameters
    ----------
    model : torch.nn.Module
    inplace : bool, default: False
        Change ``model`` itself, not a copy.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    TypeError, ValueError
        If model is a wrapper for several devices or compiled, or has no such stem.
    """
    refuse_wrapper(model)
    model = model if inplace else copied(model)
    averages = [module for module in model.modules() if isinstance(module, ShiftAverage)]
    stems = [module for module in averages if isinstance(module, AntialiasedStem)]
    if not stems:
        raise ValueError(f"{type(model).__name__} has no stem that antialias_stem made")
    for average in averages:
        _take_out(model, average)
    for stem in stems:
        parts = (part for part in (stem.conv, stem.norm, stem.act) if part is not None)
        inside = {name for part in parts for name in all_names(model, part)}
        set_reduction(model, inside, stem.first[0])
    for stem in stems:
        corrected: list[Fitted | Renormed] = [*stem.refitted, *stem.renormed]
        for former in corrected:
            former.restore()
    return model


def _put(model: nn.Module, average: ShiftAverage) -> None:
    """Put an average in place of its convolution, and Identity for normalisation and pooling."""
    changes: list[tuple[str, nn.Module]] = []
    for role in ("conv", "norm", "act", "pool"):
        module = getattr(average, role)
        if module is None or type(module) in _IDEMPOTENT:
            continue
        new: nn.Module = average
        if role != "conv":
            new = nn.Identity().train(average.training)
            average.placeholders.append((new, role))
        changes += [(name, new) for name in all_names(model, module)]
    for name, new in changes:
        _set(model, name, new)


def _take_out(model: nn.Module, average: ShiftAverage) -> None:
    """Undo _put with the average's present modules."""
    found = [(name, average.conv) for name in all_names(model, average)]
    for placeholder, role in average.placeholders:
        module = getattr(average, role)
        found += [(name, module) for name in all_names(model, placeholder) if module is not None]
    for name, module in found:
        _set(model, name, module)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    # Not under all names of the old one: an average holds it.
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent).add_module(child, module)


def _check_choices(layers: str, correction: str, images: bool) -> None:
    if layers not in ("stem", "all"):
        raise ValueError(f'layers must be "stem" or "all", got {layers!r}')
    if layers == "all" and not images:
        raise ValueError('layers="all" needs images, to correct the convolutions after each layer')
    if correction not in ("fit", "norms"):
        raise ValueError(f'correction must be "fit" or "norms", got {correction!r}')
    if correction == "norms" and not images:
        raise ValueError('correction="norms" needs images, to estimate statistics of')


def _warn_of_old(**arguments: float | None) -> None:
    for name, value in arguments.items():
        if value is not None:
            message = f"{name} of antialias_stem is deprecated: every channel is averaged"
            warnings.warn(message, DeprecationWarning, stacklevel=3)


def _norms(model: nn.Module, later: list[Call]) -> list[Any]:
    """Return the batch normalisations that some calls of a network's twin were of."""
    modules = dict.fromkeys(model.get_submodule(call.name) for call in later)
    return [module for module in modules if has_statistics(module)]


def _check_norms(model: nn.Module, later: list[Call]) -> None:
    if not _norms(model, later):
        raise ValueError(
            'correction="norms" is for batch normalisations that keep statistics, and '
            f'{type(model).__name__} has none after its first layer: give correction="fit"'
        )


def _average_later(
    original: nn.Module, model: nn.Module, calls: list[Call], later: list[Call], every_layer: bool
) -> list[Target]:
    """Average later strided layers, or none, and return what can be fitted, in order of calls."""
    counts = Counter(call.name for call in calls)
    targets: list[Target] = []
    for k, call in enumerate(later):
        several = counts[call.name] > 1 or len(all_names(original, call.module)) > 1
        layer = getattr(call.module, "base_layer", call.module)
        if several or not isinstance(layer, nn.Conv2d):
            continue
        if _is_in_adapter(original, call.name):
            continue
        strided = max(layer.stride) > 1
        if strided and not every_layer:
            break
        place = conv = model.get_submodule(call.name)
        norm, act = (
            None if name is None else model.get_submodule(name) for name in _followers(later, k)
        )
        if strided and max(layer.dilation) == 1:
            apart = None if norm is act or act is None else norm
            average = ShiftAverage(conv, apart, act, weights=_LATER_WEIGHTS)
            _put(model, average)
            # Without an activation the convolution itself reads the averaged input.
            place = conv if average.linear else average
        if can_refit(conv):
            targets.append(Target(call.name, place, conv, norm))
    return targets


def _is_in_adapter(model: nn.Module, name: str) -> bool:
    """Return whether a module is a part of an adapter (LoRA), which is one layer."""
    parents = name.split(".")[:-1]
    return any(
        hasattr(model.get_submodule(".".join(parents[:k])), "base_layer")
        for k in range(1, len(parents) + 1)
    )


def _followers(calls: list[Call], k: int) -> tuple[str | None, str | None]:
    """Return the names of the normalisation and activation that read the output of call k."""
    out, norm = calls[k].outputs, None
    for call in calls[k + 1 :]:
        if not call.reads(out):
            continue
        if isinstance(call.module, nn.modules.batchnorm._BatchNorm) and norm is None:
            norm, out = call.name, call.outputs
            if hasattr(call.module, "act"):  # timm's BatchNormAct2d is both
                return norm, norm
        elif type(call.module) in _IDEMPOTENT:
            return norm, call.name
        elif not isinstance(call.module, nn.Identity):
            break
    return norm, None


def _slightly_moved(images: Tensor) -> Tensor:
    """Return images, each moved by at most one pixel, all nine shifts in turn."""
    shifts = [(k // 3 % 3 - 1, k % 3 - 1) for k in range(len(images))]
    return torch.cat([moved(x[None], *u) for x, u in zip(images, shifts, strict=True)])


def _batches(images: Any, conv: nn.Conv2d) -> Iterator[Tensor]:
    accepted = f"images (N, {conv.in_channels}, H, W) or batches of them"
    if isinstance(images, Tensor) and images.ndim == 4:
        images = images.split(16)  # type: ignore[no-untyped-call]
    elif isinstance(images, (Tensor, Mapping, str)) or not isinstance(images, Iterable):
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be {accepted}, got {given}")
    for item in images:
        batch = item
        if isinstance(item, Mapping):
            batch = item.get("pixel_values")
        elif isinstance(item, (tuple, list)) and item:
            batch = item[0]
        if not isinstance(batch, Tensor):
            raise TypeError(f"images must be {accepted}, got {type(batch).__name__}")
        if batch.ndim == 3:
            batch = batch[None]
        if batch.ndim != 4 or batch.shape[1] != conv.in_channels or not batch.is_floating_point():
            raise ValueError(
                f"images must be {accepted}, floating-point, got {tuple(batch.shape)} {batch.dtype}"
            )
        if len(batch):
            yield batch.to(conv.weight.device, conv.weight.dtype)

"""Make a trained network's first layer stable: moduli where its filters are Gabor-like."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from dtwpt.nn.antialiased import AntialiasedStem
from dtwpt.nn.locate import Stem, find_stem, put, refuse_wrapper

__all__ = ["antialias_stem", "restore_stem"]

Model = TypeVar("Model", bound=nn.Module)


def antialias_stem(
    model: Model,
    threshold: float = 0.6,
    calibrate: Any = None,
    *,
    colour_threshold: float = 0.8,
    conv: str | None = None,
    norm: str | None = None,
    act: str | None = None,
    pool: str | None = None,
    inplace: bool = False,
) -> Model:
    r"""Make the first layer of a trained network stable under shifts, without training.

    Every filter of the first convolution that is Gabor-like goes through its analytic extension
    and a modulus, in place of max pooling, which the modulus stands for; the other channels stay
    as they are. Convolution, normalisation and activation keep what they learned.
    :class:`AntialiasedStem` says how.

    Parameters
    ----------
    model : torch.nn.Module
        As for :func:`replace_stem`, with a single convolution before normalisation and
        ``MaxPool2d``.
    threshold : float, default: 0.6
        Least ``gabor_likeness`` of a filter that is changed, 0 to 1: the share of its energy
        within a square window of the frequency plane as wide as the band that its stride keeps.
        The response within the window is one wave under an envelope that changes little over a
        pooling window; what lies outside makes the modulus and the maximum differ. At 0.6 that is
        the smaller part, and the departures from a clean Gabor filter that training leaves are
        let pass. Lower values change more channels, and the network's output more.
    calibrate : Tensor (N, C, H, W) or iterable of batches, optional
        Images as the network is given them, a few dozen; a ``DataLoader``, say. Of a batch that
        is a tuple or list the first item counts, of a mapping "pixel_values". Gain and offset of
        each modulus are then those that give it mean and standard deviation of the maximum, which
        the layers after it have learned to expect. Worth its while: without it, the average
        modulus of a wide-band filter is smaller than the maximum. No labels, no gradients. The
        normalisation's own statistics stay: they are of the convolution's output, which is what
        it was.
    colour_threshold : float, default: 0.8
        Least share of a filter's energy in its main colour, the first singular vector of the
        filter as a matrix (in_channels, h w). Its direction across that colour is what the
        filter is judged by; below, its channels have no one shape.
    conv, norm, act, pool : str, optional
        Dotted names of the modules, for a network that is not recognised.
    inplace : bool, default: False
        Change ``model`` itself, not a copy. The modules are then the same objects as before.

    Returns
    -------
    torch.nn.Module
        The network, with an :class:`AntialiasedStem` where its convolution was and ``Identity``
        in place of the others. The stem's ``channels`` say which were changed and why, and
        ``print(stem.summary())`` as a table. :func:`restore_stem` undoes it.

    Raises
    ------
    TypeError, ValueError
        If no stem is recognised, a module of it is of a kind that a modulus cannot stand in for,
        or an argument does not fit.

    Warns
    -----
    UserWarning
        If no filter is changed.

    Notes
    -----
    Not changed, whatever their likeness, are filters whose mean has more than a tenth of their
    energy: it does not go through the modulus. Nor are filters whose window holds the highest
    frequency: there no half-plane of frequencies is a filter's own.

    Of filters that pass, 0.1 to 0.3 of the change under a shift is left. How much of the network's
    flips this takes away depends on how many there are, and on the layers that follow.

    Examples
    --------
    >>> import torch
    >>> from skimage.filters import gabor_kernel
    >>> from torch import nn
    >>> from dtwpt.nn import antialias_stem
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)).eval()
    >>> wave = torch.tensor(gabor_kernel(0.2, sigma_x=1.5, sigma_y=1.5, n_stds=2).real)
    >>> _ = model[0].weight.data[0, 0].copy_(wave)
    >>> _ = model[0].weight.data[1].fill_(0.02)
    >>> stable = antialias_stem(model)
    >>> [(c.changed, c.reason) for c in stable[0].channels]
    [(True, 'Gabor-like'), (False, 'low-pass: its mean has 1.00 of its energy')]
    """
    found = find_stem(model, conv, norm, act, pool)
    if not inplace:
        model = copy.deepcopy(model)
        found = Stem(model, found.conv, found.norm, found.act, found.pool)
    names = found.conv, found.norm, found.act, found.pool
    conv_module, norm_module, act_module, pool_module = (found.module(name) for name in names)
    if found.convolution is not conv_module:
        raise ValueError(
            f"{found.conv} is a {type(conv_module).__name__} of several modules, and only a single "
            "convolution can be extended; replace_stem replaces such a stem whole"
        )
    stem = AntialiasedStem(
        found.convolution, norm_module, act_module, pool_module, threshold, colour_threshold
    )
    stem.names = names
    stem.training = stem.conv.training
    if stem.changed.numel() == 0:
        warnings.warn(
            f"none of {len(stem.channels)} filters is Gabor-like with threshold={threshold:g} and "
            f"colour_threshold={colour_threshold:g}: the network is what it was",
            stacklevel=2,
        )
    elif calibrate is not None:
        stem.calibrate(_batches(calibrate, stem.conv))
    found.put(stem)
    return model


def restore_stem(model: Model, *, inplace: bool = False) -> Model:
    """Undo :func:`antialias_stem`: put the stem's own modules back where they were.

    The network then has the names, and the state dict, of the original; its weights are the present
    ones.

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
    model = model if inplace else copy.deepcopy(model)
    for place, stem in list(model.named_modules()):
        if isinstance(stem, AntialiasedStem) and stem.names:
            # The network may since have become part of another.
            prefix = place.removesuffix(stem.names[0] or "")
            modules = (stem.conv, stem.norm, stem.act, stem.pool)
            for name, module in zip(stem.names, modules, strict=True):
                if name is not None and module is not None:
                    put(model, prefix + name, module)
            return model
    raise ValueError(f"{type(model).__name__} has no stem that antialias_stem made")


def _batches(images: Any, conv: nn.Conv2d) -> Iterable[Tensor]:
    accepted = f"images (N, {conv.in_channels}, H, W) or batches of them"
    if isinstance(images, Tensor) and images.ndim == 4:
        images = images.split(16)  # type: ignore[no-untyped-call]
    elif isinstance(images, (Tensor, Mapping, str)) or not isinstance(images, Iterable):
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"calibrate must be {accepted}, got {given}")
    for item in images:
        batch = item
        if isinstance(item, Mapping):
            batch = item.get("pixel_values")
        elif isinstance(item, (tuple, list)) and item:
            batch = item[0]
        if not isinstance(batch, Tensor):
            raise TypeError(f"calibrate must be {accepted}, got {type(batch).__name__}")
        if batch.ndim == 3:
            batch = batch[None]
        if batch.ndim != 4 or batch.shape[1] != conv.in_channels or not batch.is_floating_point():
            raise ValueError(
                f"calibrate must be {accepted}, floating-point, got {tuple(batch.shape)} "
                f"{batch.dtype}"
            )
        yield batch

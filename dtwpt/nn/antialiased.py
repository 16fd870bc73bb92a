"""Strided layers averaged over small shifts: ShiftAverage and AntialiasedStem."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from math import comb, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.nn.probe import shape_only
from dtwpt.nn.refit import Fitted
from dtwpt.nn.renorm import Renormed
from dtwpt.nn.symbolic import leaf

# Cells at the border of a map that see the convolution's padding. They respond to the frame, which
# does not move with the image.
_EDGE = 2
# Of images that tell a stride: their difference has many divisors.
_SIDES = (224, 320)

__all__ = ["AntialiasedStem", "ShiftAverage", "as_weights", "moved", "stride_of"]


class ShiftAverage(nn.Module):
    r"""Average a strided layer's own output over small shifts of its input.

    Parameters
    ----------
    conv : torch.nn.Module
        A convolution, or several in sequence.
    norm, act : torch.nn.Module or None
        What follows at the same resolution.
    pool : torch.nn.Module or None
        A pooling of any kind.
    weights : sequence of float
        Weights of the shifts -r to r along an axis, in pixels of the input.

    Attributes
    ----------
    conv, norm, act, pool : torch.nn.Module or None
        The modules given. They are called, not read, so parametrised, pruned, fused or wrapped
        ones work.
    weights : tuple of float
        Normalised to the sum 1.
    first, stride : (int, int)
        Strides of conv, and of conv and pool together.
    in_channels, out_channels : int
        Of the convolutions.
    weight : Tensor
        Kernels of the first convolution, for networks that read its dtype or device.

    Raises
    ------
    TypeError, ValueError
        If the stride of a module is unknown, or it has none.

    Notes
    -----
    Shape: (N, C, H, W) or (C, H, W) to the output shape of the layer without the average.

    With L the layer and :math:`T_u` a shift of the image by whole pixels,

    .. math:: \bar L(x) = \sum_u w_{u_y} w_{u_x} L(T_u x).

    If the shift is random with probabilities w, this is the conditional mean of the layer's output:
    of all functions of the unshifted image, it is the closest in mean square. Shifts that differ by
    a multiple of the convolution's stride need the same output at other positions, so the
    convolution is called once, on a batch of all shifts smaller than its stride. This takes as many
    multiply-accumulates as stride 1. A convolution without activation and pooling is linear, and
    its input is averaged instead.

    Maps are padded by replication. In training mode the normalisation takes the statistics of all
    shifts. The module has no buffers.
    """

    conv: Any
    norm: Any
    act: Any
    pool: Any

    def __init__(
        self,
        conv: nn.Module,
        norm: nn.Module | None = None,
        act: nn.Module | None = None,
        pool: nn.Module | None = None,
        weights: Sequence[float] = (1, 4, 6, 4, 1),
    ) -> None:
        super().__init__()
        self.conv, self.norm, self.act, self.pool = conv, norm, act, pool
        self.weights = as_weights(weights)
        if getattr(pool, "return_indices", False):
            raise ValueError("pool must have return_indices=False")
        self.first = stride_of(conv)
        pooling = (1, 1) if pool is None else stride_of(pool)
        self.stride = tuple(a * b for a, b in zip(self.first, pooling, strict=True))
        # Replacements of norm, act and pool; plain values, so not in the state dict.
        self.placeholders: list[tuple[nn.Module, str]] = []
        self.training = conv.training

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the averaged layer's output."""
        if x.ndim not in (3, 4):
            raise ValueError(f"x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
        batch = x[None] if x.ndim == 3 else x
        out = self._averaged_input(batch) if self.linear else self._averaged_output(batch)
        return out[0] if x.ndim == 3 else out

    def _averaged_input(self, x: Tensor) -> Tensor:
        reach = len(self.weights) // 2
        x = functional.pad(x, (reach,) * 4, mode="replicate")
        for axis in (-2, -1):
            length = x.shape[axis] - 2 * reach
            x = _weighted_sum(
                (x.narrow(axis, k, length), weight) for k, weight in enumerate(self.weights)
            )
        out: Tensor = self.conv(x)
        return out if self.norm is None else self.norm(out)

    def _averaged_output(self, x: Tensor) -> Tensor:
        rows, columns = (_places(len(self.weights), stride) for stride in self.first)
        phases = [(down, across) for down in _phases(rows) for across in _phases(columns)]
        y = self.conv(torch.cat([moved(x, *phase) for phase in phases]))
        for module in (self.norm, self.act):
            y = y if module is None else module(y)
        maps = dict(zip(phases, y.chunk(len(phases)), strict=True))
        pool: Callable[[Tensor], Tensor] = nn.Identity() if self.pool is None else self.pool
        return _weighted_sum(
            (pool(_next(maps[down, across], below, right)), down_weight * across_weight)
            for (below, down), down_weight in zip(rows, self.weights, strict=True)
            for (right, across), across_weight in zip(columns, self.weights, strict=True)
        )

    @property
    def linear(self) -> bool:
        """Whether the layer is linear before its normalisation."""
        return self.act is None and self.pool is None and _is_linear(self.conv)

    @property
    def in_channels(self) -> int:
        """Channels that the first convolution takes."""
        return int(self._convolutions[0].in_channels)

    @property
    def out_channels(self) -> int:
        """Channels that the last convolution gives."""
        return int(self._convolutions[-1].out_channels)

    @property
    def weight(self) -> Tensor:
        """Kernels of the first convolution."""
        weight: Tensor = self._convolutions[0].weight
        return weight

    @property
    def _convolutions(self) -> list[Any]:
        # Adapters (LoRA) hold the convolution that they add to as base_layer, before their own.
        return [module for module in self.conv.modules() if isinstance(module, nn.Conv2d)]

    def original(self, x: Tensor) -> Tensor:
        """Return the layer's output without the average."""
        for module in (self.conv, self.norm, self.act, self.pool):
            x = x if module is None else module(x)
        return x

    def macs(self, size: tuple[int, int]) -> int:
        """Return the multiply-accumulates of the convolutions on an image (H, W), in eval mode."""
        stem = copy.deepcopy(self).eval()
        for module in stem.modules():  # users' hooks must not see this image
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        parameter = next(self.conv.parameters())
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter, torch.no_grad():
            stem(parameter.new_zeros(1, self.in_channels, *size))
        return int(counter.get_total_flops()) // 2

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        shares = ", ".join(f"{weight:.3g}" for weight in self.weights)
        return f"weights=({shares}), stride={self.stride}"


class AntialiasedStem(ShiftAverage):
    """First layer of a network, averaged over small shifts of the image.

    A :class:`ShiftAverage` that :func:`antialias_stem` puts where the first convolution was.

    Attributes
    ----------
    refitted : list of Fitted
        Convolutions that were refitted, with their former weights. Not in the state dict.
    renormed : list of Renormed
        Batch normalisations whose statistics were estimated again, and their former ones. Not in
        the state dict.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.refitted: list[Fitted] = []
        self.renormed: list[Renormed] = []

    def extra_repr(self) -> str:
        """Return what ``repr`` shows."""
        shown = f"{super().extra_repr()}, {len(self.refitted)} convolutions refitted"
        return f"{shown}, {len(self.renormed)} norms re-estimated" if self.renormed else shown


def as_weights(weights: Any, reach: Any = None, name: str = "weights") -> tuple[float, ...]:
    """Return weights of the shifts along an axis, of sum 1.

    Parameters
    ----------
    weights : sequence of float or None
        An odd number, not negative.
    reach : int or None
        In place of weights: binomial ones of the shifts -reach to reach.

    Raises
    ------
    TypeError, ValueError
        If neither or both are given, or they do not fit.
    """
    if reach is not None:
        if weights is not None:
            raise ValueError(f"give {name} or reach, not both")
        if isinstance(reach, bool) or not isinstance(reach, int):
            raise TypeError(f"reach must be an integer from 0 to 8, got {reach!r}")
        if not 0 <= reach <= 8:
            raise ValueError(f"reach must be an integer from 0 to 8, got {reach}")
        weights = [comb(2 * reach, k) for k in range(2 * reach + 1)]
    accepted = "an odd number of weights that are not negative, such as (1, 4, 6, 4, 1)"
    try:
        values = [float(value) for value in weights]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {accepted}, got {weights!r}") from None
    total = sum(values)
    if len(values) % 2 == 0 or min(values) < 0 or not 0 < total < float("inf"):
        raise ValueError(f"{name} must be {accepted}, got {weights!r}")
    return tuple(value / total for value in values)


def stride_of(module: nn.Module) -> tuple[int, int]:
    """Return the stride of a convolution, a pooling, or several in sequence.

    Raises
    ------
    ValueError
        If it is unknown.
    """
    kind = type(module).__name__
    if "Adaptive" in kind or "Fractional" in kind:
        raise ValueError(f"{kind} has no fixed stride, so its shifts are unknown")
    if isinstance(module, nn.Sequential):
        strides = [stride_of(child) for child in module]
        return prod(s[0] for s in strides), prod(s[1] for s in strides)
    # Adapters (LoRA) hold the convolution that they add to as base_layer.
    own = getattr(getattr(module, "base_layer", module), "stride", None)
    if own is not None:
        down, across = own if isinstance(own, (tuple, list)) else (own, own)
        return int(down), int(across)
    children = list(module.children())
    strided = [m for m in module.modules() if getattr(m, "stride", None) is not None]
    if not strided:
        return 1, 1
    inside = {stride_of(m) for m in strided}
    if len(children) > 1 and len(strided) > 1 and inside != {(1, 1)}:
        return _measured_stride(module)
    return inside.pop()


def _measured_stride(module: nn.Module) -> tuple[int, int]:
    """Return the stride of a module by the sizes that it gives for images of two sizes."""
    convolutions = (part for part in module.modules() if isinstance(part, nn.Conv2d))
    channels = next((conv.in_channels for conv in convolutions), 1)
    parameters = (p for p in module.parameters() if p.is_floating_point())
    dtype = next((p.dtype for p in parameters), torch.float32)
    near, far = _SIDES
    try:
        with torch.no_grad(), torch.device("meta"):
            twin = shape_only(module)
            small, large = (
                twin(torch.empty(1, channels, n, n, dtype=dtype, device="meta")).shape[2:]
                for n in _SIDES
            )
        down, across = ((far - near) / (b - a) for a, b in zip(small, large, strict=True))
    except Exception:  # whatever it raises for images that it does not take
        down = across = 0.5
    if down % 1 or across % 1:
        raise ValueError(
            f"the stride of {type(module).__name__} is unknown; name an nn.Conv2d or an "
            "nn.Sequential"
        )
    return int(down), int(across)


def _is_linear(module: nn.Module) -> bool:
    """Return whether a module is a convolution, with an adapter (LoRA) or not, or a few of them."""
    if isinstance(module, nn.Sequential):
        return all(_is_linear(child) for child in module)
    return isinstance(getattr(module, "base_layer", module), (nn.Conv2d, nn.Identity))


def _places(count: int, stride: int) -> list[tuple[int, int]]:
    """Return each shift as whole strides and the remainder of least magnitude."""
    reach, half = count // 2, stride // 2
    return [((u + half) // stride, (u + half) % stride - half) for u in range(-reach, reach + 1)]


def _phases(places: list[tuple[int, int]]) -> list[int]:
    return sorted({rest for _, rest in places})


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """Return x shifted by ``down`` and ``right`` pixels, with its border replicated."""
    if down == right == 0:
        return x
    height, width = x.shape[-2:]
    edges = (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0))
    padded = functional.pad(x, edges, mode="replicate")
    return padded[..., max(down, 0) :, max(right, 0) :][..., :height, :width]


def _next(y: Tensor, *steps: int) -> Tensor:
    """Return y shifted by whole steps, except next to its border."""
    for axis, step in zip((-2, -1), steps, strict=True):
        inner = y.shape[axis] - 2 * _EDGE
        if step != 0 and inner >= abs(step):
            parts = ((0, _EDGE), (_EDGE + step, inner), (_EDGE + inner, _EDGE))
            y = torch.cat([y.narrow(axis, first, length) for first, length in parts], axis)
    return y


def _weighted_sum(terms: Iterable[tuple[Tensor, float]]) -> Tensor:
    """Sum in at least float32, and return the dtype of the terms."""
    total: Any = None
    dtype: Any = None
    for values, weight in terms:
        if weight == 0:
            continue
        dtype = values.dtype
        half = dtype in (torch.float16, torch.bfloat16)
        term = weight * (values.float() if half else values)
        total = term if total is None else total + term
    out: Tensor = total.to(dtype)
    return out

"""A stem that is trained, some channels of which go through a modulus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.engine.torch_ops import modulus
from dtwpt.nn.geometry import (
    as_activation,
    as_convolution,
    as_norm,
    as_pooling,
    window_average,
)
from dtwpt.nn.hilbert import impulse_responses, needed_reach
from dtwpt.nn.judgement import ChannelReport, Rule, judge

__all__ = ["AntialiasedStem"]


class AntialiasedStem(nn.Module):
    r"""A trained stem, some channels of which go through a modulus instead of max pooling.

    Made by :func:`antialias_stem`, which puts it where the convolution was. The stem's own
    modules, with what they learned, are ``conv``, ``norm``, ``act`` and ``pool``.

    Parameters
    ----------
    conv : torch.nn.Conv2d
    norm : torch.nn.Module or None
        ``BatchNorm2d``, ``SyncBatchNorm`` or ``FrozenBatchNorm2d``.
    act : torch.nn.Module or None
        Any activation that never decreases.
    pool : torch.nn.MaxPool2d
    threshold, colour_threshold : float
        As in :func:`antialias_stem`.

    Attributes
    ----------
    channels : tuple of ChannelReport
        One of each channel.
    direction : Tensor, shape (out_channels, 2)
        Frequencies (down, right) on whose side the analytic kernels lie, rad/pixel; 0 of a
        channel that was not changed.
    gain, offset : Tensor, shape (out_channels,)
        The modulus a stands for the maximum as ``gain * a + offset``: 1 and 0 unless calibrated.

    Notes
    -----
    Shape: (N, in_channels, H, W) to (N, out_channels, H', W'), as of the original stem.

    Let V be a filter, b its bias, s and t the normalisation's scale and shift, R the activation
    and M the maximum over a pooling window. As R never decreases,

    .. math:: M\,R(s(V * x + b) + t) = R(s\,b + t + M\,s(V * x)).

    V is split into its mean :math:`\bar V`, all that answers a constant image, and
    :math:`V_0 = V - \bar V`. Of the first part little changes within a window. Of the second, the
    response :math:`V_0 * x` is a wave under an envelope, and the envelope, its maximum wherever
    the wave's crests are, is the modulus of :math:`(V_0 + i H V_0) * x`, H being the Hilbert
    transform. The minimum is its negative, so that for either sign of s

    .. math:: M\,s(V * x) \approx A\,(s\,\bar V * x + |s|\,|(V_0 + i H V_0) * x|),

    A being the average over the window with binomial weights, [1 2 1]/4 along either axis of a
    window of three. Where the envelope is smooth, one sample amid the window would do. Learned
    filters of a few pixels have a wide band, and so has their envelope: sampled as coarsely as
    windows stand, it would be aliased itself. Without the split the mean would go through the
    modulus, too, and photographs are mostly mean.

    In training, statistics are those of the convolution's output, as in the original network
    (with ``SyncBatchNorm`` the changed channels use those of their own process).
    :math:`H V_0` is always that of the present weights.
    """

    norm: Any
    act: Any
    direction: Tensor
    gain: Tensor
    offset: Tensor
    reach: Tensor
    hilbert: Tensor
    changed: Tensor
    others: Tensor
    order: Tensor

    def __init__(
        self,
        conv: nn.Module,
        norm: nn.Module | None,
        act: nn.Module | None,
        pool: nn.Module | None,
        threshold: float = 0.6,
        colour_threshold: float = 0.8,
    ) -> None:
        super().__init__()
        self.conv, self.pool = as_convolution(conv), as_pooling(pool)
        self.norm, self.act = as_norm(norm), as_activation(act, self.conv)
        self._rule = Rule(threshold, colour_threshold, self.conv.stride[0])
        self.names: tuple[str | None, ...] = ()
        weight = self.conv.weight
        out, height, width = len(weight), *self.conv.kernel_size
        self.channels, direction = self._judged(None)
        self.register_buffer("direction", torch.from_numpy(direction).to(weight))
        self.register_buffer("gain", torch.ones(out).to(weight))
        self.register_buffer("offset", torch.zeros(out).to(weight))
        chosen = direction.any(1)
        kernels = weight.detach().double().cpu().numpy()[chosen]
        reach = needed_reach(
            kernels - kernels.mean((2, 3), keepdims=True),
            impulse_responses(direction[chosen], height, width),
        )
        self.register_buffer("reach", torch.from_numpy(reach))
        for name in ("hilbert", "changed", "others", "order"):
            self.register_buffer(name, None, persistent=False)
        self._prepare()
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]

    @property
    def calibrated(self) -> bool:
        """Whether gain and offset were fitted to images."""
        return bool(self.gain.ne(1).any() | self.offset.ne(0).any())

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels, pooled."""
        if self.changed.numel() == 0:
            return self._activated(self.pool(self._normed(self.conv(x))))
        pooled: Tensor | None = None
        if self._uses_batch():
            y = self.conv(x)
            measured = _promoted(y.index_select(1, self.changed))
            var, mean = torch.var_mean(measured, (0, 2, 3), correction=0)
            pooled = self.pool(self._normed(y)).index_select(1, self.others)
        else:
            mean, var = self._running(self.changed)
            if self.others.numel():
                pooled = self._unchanged(x)
        scale, shift = self._affine(mean, var)
        constant, wave = self.parts(x)
        moved = scale * constant + scale.abs() * wave + shift
        moved = moved.to(constant.dtype)
        if pooled is not None:
            moved = torch.cat((pooled, moved), 1).index_select(1, self.order)
        return self._activated(moved)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return both parts of the changed channels' responses, before normalisation.

        Returns
        -------
        constant, wave : Tensor, shape (N, changed channels, H', W')
            :math:`\bar V * x + b`, and gain times modulus plus offset, averaged over windows.
        """
        constant, envelope = self._constant_and_envelope(x)
        gain, offset = (
            values.index_select(0, self.changed).to(envelope)[:, None, None]
            for values in (self.gain, self.offset)
        )
        return constant, gain * envelope + offset

    def analytic_kernels(self) -> Tensor:
        """Return the kernels that the moduli are of, as ``torch.nn.functional.conv2d`` takes them.

        Returns
        -------
        Tensor, complex, shape (changed channels, in_channels, h + 2 reach, w + 2 reach)
        """
        real, imaginary = self._kernels()
        down, across = (int(value) for value in self.reach)
        return torch.complex(functional.pad(real, (across, across, down, down)), imaginary)

    def summary(self) -> str:
        """Return the table of channels as text."""
        head = "channel  changed  likeness  frequency  orientation  colour  sign  reason"
        rows = [
            f"{c.channel:7d}  {'yes' if c.changed else 'no':7s}  {c.gabor_likeness:8.2f}  "
            f"{c.frequency:9.2f}  {c.orientation:11.0f}  {c.colour_share:6.2f}  {c.norm_sign:+4d}  "
            f"{c.reason}"
            for c in self.channels
        ]
        return "\n".join([head, *rows])

    def macs(self, size: tuple[int, int]) -> int:
        """Return the multiply-accumulates of all filters on an image (H, W), in eval mode."""
        conv, changed = self.conv, self.changed.numel()
        places = 1
        for axis, n in enumerate(size):
            room = n + 2 * int(conv.padding[axis]) - conv.kernel_size[axis]
            places *= room // conv.stride[axis] + 1
        imaginary = conv.in_channels * self._side(0) * self._side(1)
        more = changed * (imaginary + conv.in_channels)
        return places * (conv.weight.numel() + more)

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        return (
            f"{self.changed.numel()} of {self.conv.out_channels} channels changed, "
            f"threshold={self._rule.threshold:g}, "
            f"colour_threshold={self._rule.colour_threshold:g}, "
            f"analytic kernels {self._side(0)} x {self._side(1)}, calibrated={self.calibrated}"
        )

    @torch.no_grad()
    def calibrate(self, images: Iterable[Tensor]) -> None:
        """Give the moduli mean and standard deviation of the maxima that they stand for.

        Parameters
        ----------
        images : iterable of Tensor, shape (N, in_channels, H, W)
        """
        changed = self.changed
        sums = torch.zeros(5, changed.numel(), dtype=torch.float64)
        weight = self.conv.weight.index_select(0, changed)
        sign = self._signs(changed)[:, None, None]
        seen = 0
        for batch in images:
            x = batch.to(weight.device, weight.dtype)
            y = functional.conv2d(x, weight, None, self.conv.stride, self.conv.padding)
            low, envelope = self._constant_and_envelope(x, bias=False)
            target = self.pool(sign * y) - sign * low
            a, m = (v.double().transpose(0, 1).flatten(1).cpu() for v in (envelope, target))
            sums += torch.stack([v.sum(1) for v in (torch.ones_like(a), a, m, a * a, m * m)])
            seen += len(x)
        if seen == 0:
            raise ValueError("calibrate must hold at least one image, got none")
        mean_a, mean_m, mean_aa, mean_mm = sums[1:] / sums[0]
        var_a, var_m = mean_aa - mean_a**2, (mean_mm - mean_m**2).clamp(min=0)
        # Nothing is known about a channel that all images leave alike.
        known = var_a > 1e-12 * mean_aa
        gain = torch.where(known, (var_m / var_a).sqrt(), 1.0)
        offset = torch.where(known, mean_m - gain * mean_a, 0.0)
        self.gain[changed] = gain.to(self.gain)
        self.offset[changed] = offset.to(self.offset)

    def _constant_and_envelope(self, x: Tensor, bias: bool = True) -> tuple[Tensor, Tensor]:
        """Return averages over pooling windows of both parts of the changed channels."""
        conv = self.conv
        down, across = (int(n) for n in conv.padding)
        real_kernels, imaginary_kernels = self._kernels()
        real = functional.conv2d(x, real_kernels, stride=conv.stride, padding=conv.padding)
        imaginary = functional.conv2d(
            x,
            imaginary_kernels,
            stride=conv.stride,
            padding=(down + self._reach(0), across + self._reach(1)),
        )
        local_mean = functional.avg_pool2d(
            functional.pad(x, (across, across, down, down)), conv.kernel_size, conv.stride
        )
        constant = functional.conv2d(
            local_mean,
            conv.weight.index_select(0, self.changed).sum((2, 3), keepdim=True),
            conv.bias.index_select(0, self.changed) if bias and conv.bias is not None else None,
        )
        envelope = modulus(_promoted(real), _promoted(imaginary))
        return window_average(constant, self.pool), window_average(envelope, self.pool)

    def _kernels(self) -> tuple[Tensor, Tensor]:
        """Return V_0, and H V_0 where it is not negligible."""
        weight = self.conv.weight.index_select(0, self.changed)
        real = weight - weight.mean((2, 3), keepdim=True)
        count, colours = real.shape[:2]
        # Hilbert transform as a convolution: every filter with the impulse response of its own.
        flipped = real.flip((2, 3)).flatten(0, 1)[:, None]
        imaginary = functional.conv2d(self.hilbert[None], flipped, groups=count)
        return real, imaginary.reshape(count, colours, *imaginary.shape[2:])

    def _prepare(self) -> None:
        """Derive what is not in the state dict."""
        conv, chosen = self.conv, self.direction.ne(0).any(1)
        self.changed = chosen.nonzero().flatten()
        self.others = (~chosen).nonzero().flatten()
        self.order = torch.cat((self.others, self.changed)).argsort()
        height, width = conv.kernel_size
        index = [
            (np.arange(-reach - side + 1, side + reach)) % (4 * side)
            for side, reach in zip((height, width), self.reach.tolist(), strict=True)
        ]
        theta = self.direction[self.changed].double().cpu().numpy()
        taps = impulse_responses(theta, height, width)[:, index[0][:, None], index[1]]
        self.hilbert = torch.from_numpy(taps).to(conv.weight)

    def _reach(self, axis: int) -> int:
        side = self.conv.kernel_size[axis]
        return (self.hilbert.shape[axis + 1] + 1) // 2 - side

    def _side(self, axis: int) -> int:
        return self.conv.kernel_size[axis] + 2 * self._reach(axis)

    def _judged(
        self, chosen: NDArray[np.bool_] | None
    ) -> tuple[tuple[ChannelReport, ...], NDArray[np.float64]]:
        weight = self.conv.weight.detach().double().cpu().numpy()
        return judge(weight, self._signs(None).cpu().numpy().astype(int), self._rule, chosen)

    def _signs(self, index: Tensor | None) -> Tensor:
        """Return the signs of the normalisation's scale."""
        weight = None if self.norm is None else self.norm.weight
        if weight is None:
            sign = self.conv.weight.new_ones(self.conv.out_channels)
        else:
            sign = weight.detach().sign().to(self.conv.weight)
        return sign if index is None else sign.index_select(0, index)

    def _uses_batch(self) -> bool:
        norm = self.norm
        if norm is None or not isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return False
        return norm.training or norm.running_mean is None

    def _running(self, index: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.norm
        if norm is None:
            ones = self.conv.weight.new_ones(len(index))
            return torch.zeros_like(ones), ones
        return norm.running_mean.index_select(0, index), norm.running_var.index_select(0, index)

    def _affine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift of the normalisation of the changed channels."""
        norm = self.norm
        if norm is None:
            return var[:, None, None], mean[:, None, None]
        scale = (var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.index_select(0, self.changed)
        shift = -mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias.index_select(0, self.changed)
        return scale[:, None, None], shift[:, None, None]

    def _normed(self, y: Tensor) -> Tensor:
        return y if self.norm is None else self.norm(y)

    def _unchanged(self, x: Tensor) -> Tensor:
        """Return the unchanged channels, normalised by running statistics and pooled."""
        conv, norm, others = self.conv, self.norm, self.others
        bias = None if conv.bias is None else conv.bias.index_select(0, others)
        weight = conv.weight.index_select(0, others)
        y = functional.conv2d(x, weight, bias, conv.stride, conv.padding)
        if norm is not None:
            mean, var = self._running(others)
            scale, shift = (
                None if values is None else values.index_select(0, others)
                for values in (norm.weight, norm.bias)
            )
            y = functional.batch_norm(y, mean, var, scale, shift, False, 0.0, norm.eps)
        pooled: Tensor = self.pool(y)
        return pooled

    def _activated(self, x: Tensor) -> Tensor:
        return x if self.act is None else self.act(x)


def _after_loading(stem: AntialiasedStem, _: Any) -> None:
    """Make a stem that of the state that was loaded."""
    stem._prepare()
    stem.channels, _ = stem._judged(stem.direction.ne(0).any(1).cpu().numpy())


def _promoted(x: Tensor) -> Tensor:
    """Return x in at least float32: squares of half precision would overflow."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

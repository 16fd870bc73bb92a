"""Normalisation layer for non-negative features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dtwpt.nn.symbolic import leaf

__all__ = ["EnergyNorm2d"]


class EnergyNorm2d(nn.Module):
    r"""Divide each channel by the root of its energy.

    .. math:: y = |\gamma| \, \frac{x}{\sqrt{\frac{1}{2} E[x^2] + \epsilon}} + \beta

    The counterpart, for a complex modulus, of batch normalisation of the real part: half of the
    modulus's energy is the variance of the real part. No mean is subtracted, as a modulus is
    non-negative, and the scale is kept positive ([1]_).

    Parameters
    ----------
    num_features : int
        Channels C.
    eps : float, default: 1e-5
    momentum : float or None, default: 0.1
        Weight of the newest batch in the running energy; None: a cumulative average.
    affine : bool, default: True
        Whether :math:`\gamma` (``weight``) and :math:`\beta` (``bias``) are learned.
    sync : bool, default: False
        Whether to compute the energy of a batch over all processes of ``torch.distributed``, as in
        ``torch.nn.SyncBatchNorm``, whose conversion sets it.
    track_running_stats : bool, default: True
        Whether a running energy is kept; without one, evaluation uses the energy of the batch.

    Attributes
    ----------
    stats : BatchNorm2d or SyncBatchNorm
        Holder of parameters and statistics, never called. Tools that freeze, synchronise, reset or
        exempt batch normalisation find it. Its ``running_mean`` stays 0, its ``running_var`` is the
        running energy, so that in evaluation it is equivalent to this module unless a weight is
        negative.
    weight, bias : Parameter or None, shape (C,)
    running_energy : Tensor or None, shape (C,)
        :math:`\frac{1}{2} E[x^2]`, used in evaluation.

    Notes
    -----
    Shape: (N, C, H, W) or (C, H, W) to the same.

    Raises
    ------
    ValueError
        If the input has another shape.

    References
    ----------
    .. [1] H. Leterme, K. Polisano, V. Perrier, K. Alahari, "From CNNs to Shift-Invariant Twin
       Models Based on Complex Wavelets", arXiv 2212.00394.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import EnergyNorm2d
    >>> y = EnergyNorm2d(2)(3 * torch.ones(1, 2, 4, 4))
    >>> round(float(y.detach().square().mean()), 3)
    2.0
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        sync: bool = False,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self._sync = num_features, sync
        self.stats: Any = nn.BatchNorm2d(num_features, eps, momentum, affine, track_running_stats)

    @property
    def weight(self) -> nn.Parameter | None:
        """Scale of each channel; its absolute value is used."""
        weight: nn.Parameter | None = self.stats.weight
        return weight

    @property
    def bias(self) -> nn.Parameter | None:
        """Offset of each channel."""
        bias: nn.Parameter | None = self.stats.bias
        return bias

    @property
    def running_energy(self) -> Tensor | None:
        """Half the mean square of each channel, over the batches seen so far."""
        energy: Tensor | None = self.stats.running_var
        return energy

    @property
    def sync(self) -> bool:
        """Whether the energy of a batch is computed over all processes."""
        return self._sync or isinstance(self.stats, nn.SyncBatchNorm)

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        return f"{self.num_features}, sync={self.sync}"

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps."""
        channels = self.num_features
        if x.ndim not in (3, 4) or x.shape[-3] != channels:
            raise ValueError(
                f"x must have shape (N, {channels}, H, W) or ({channels}, H, W), got "
                f"{tuple(x.shape)}"
            )
        scale, shift = self.scale_and_shift(x)
        if shift is None:
            return x * scale[:, None, None]
        normed: Tensor = torch.addcmul(shift[:, None, None], x, scale[:, None, None])
        return normed

    def scale_and_shift(
        self, x: Tensor, spread: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the factor and the offset of each channel, (C,) each.

        Updates the running energy, as a call of the module does.

        Parameters
        ----------
        x : Tensor, shape (N, K, H, W)
            The channels, or maps of which they are combinations.
        spread : callable, optional
            Gives the energies of the channels, (C,), for those of the maps, (K,).
        """
        stats = self.stats
        # Tools may replace the holder by frozen kinds, which have no batch statistics.
        learns = isinstance(stats, nn.modules.batchnorm._BatchNorm) and stats.training
        energy = stats.running_var
        # As in batch normalisation, an empty batch changes nothing.
        if (learns and x.numel()) or energy is None:
            energy = self._energy(x, learns and stats.track_running_stats, spread)
        scale = (energy + stats.eps).rsqrt()
        if stats.weight is not None:
            scale = scale * stats.weight.abs()
        return scale.to(x.dtype), None if stats.bias is None else stats.bias.to(x.dtype)

    def _energy(self, x: Tensor, track: bool, spread: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Return half the mean square of a batch, and update the running energy."""
        stats = self.stats
        exact = torch.promote_types(x.dtype, torch.float32)  # squares need range
        maps = x if x.ndim == 4 else x[None]
        energy = maps.to(exact).square().mean((0, 2, 3)) / 2
        pixels = maps.numel() / len(energy)
        if spread is not None:
            energy = spread(energy)
        if self.sync and torch.distributed.is_available() and torch.distributed.is_initialized():
            # Processes may hold different numbers of pixels.
            count = energy.new_full((1,), pixels)
            total: Tensor = _SumOverProcesses.apply(  # type: ignore[no-untyped-call]
                torch.cat((energy * count, count)), getattr(stats, "process_group", None)
            )
            energy = total[:-1] / total[-1]
        if track and stats.running_var is not None:
            with torch.no_grad():
                stats.num_batches_tracked.add_(1)
                newest = energy.detach().to(stats.running_var.dtype)
                if stats.momentum is None:
                    change = (newest - stats.running_var) / stats.num_batches_tracked
                    stats.running_var.add_(change.to(newest.dtype))
                else:
                    stats.running_var.lerp_(newest, stats.momentum)
        return energy


class _SumOverProcesses(torch.autograd.Function):
    """A sum over all processes of a group, whose derivative is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = x.clone()
        torch.distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone()
        torch.distributed.all_reduce(total, group=ctx.group)
        return total, None

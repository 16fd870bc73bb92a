"""Normalisation of what is never negative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["EnergyNorm2d"]


class EnergyNorm2d(nn.Module):
    r"""Divide each channel by the root of its energy.

    .. math:: y = |\gamma| \, \frac{x}{\sqrt{\frac{1}{2} E[x^2] + \epsilon}} + \beta

    The counterpart, for a complex modulus, of batch normalisation of the real part: half of the
    modulus's energy is the variance of the real part. No mean is subtracted, as a modulus has none
    to give, and the scale is kept positive ([1]_).

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
        Whether the energy of a batch is that of all processes of ``torch.distributed``, as in
        ``torch.nn.SyncBatchNorm``; each must hold as many images.

    Attributes
    ----------
    running_energy : Tensor, shape (C,)
        :math:`\frac{1}{2} E[x^2]`, used in evaluation.

    Notes
    -----
    Shape: (N, C, H, W) to the same.

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

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_energy: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        sync: bool = False,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.sync = affine, sync
        for name in ("weight", "bias"):
            parameter = nn.Parameter(torch.empty(num_features)) if affine else None
            self.register_parameter(name, parameter)
        self.register_buffer("running_energy", torch.empty(num_features))
        self.register_buffer("num_batches_tracked", torch.empty((), dtype=torch.long))
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget what was seen."""
        self.running_energy.fill_(1)
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Set everything to how it began."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps."""
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ValueError(
                f"x must have shape (N, {self.num_features}, H, W), got {tuple(x.shape)}"
            )
        # As in batch normalisation, nothing is learned from no images.
        energy = self._energy(x) if self.training and x.numel() else self.running_energy
        scale = (energy + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight.abs()
        scale = scale.to(x.dtype)[:, None, None]
        if self.bias is None:
            return x * scale
        return torch.addcmul(self.bias.to(x.dtype)[:, None, None], x, scale)

    def extra_repr(self) -> str:
        """Return what matters for reading a printed model."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, sync={self.sync}"
        )

    def _energy(self, x: Tensor) -> Tensor:
        """Return half the mean square of a batch, and count it in."""
        exact = torch.promote_types(x.dtype, torch.float32)  # squares need range
        energy = x.to(exact).square().mean((0, 2, 3)) / 2
        if self.sync and torch.distributed.is_available() and torch.distributed.is_initialized():
            total: Tensor = _SumOverProcesses.apply(energy)  # type: ignore[no-untyped-call]
            energy = total / torch.distributed.get_world_size()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            newest = energy.detach().to(self.running_energy.dtype)
            if self.momentum is None:
                self.running_energy += (newest - self.running_energy) / self.num_batches_tracked
            else:
                self.running_energy.lerp_(newest, self.momentum)
        return energy


class _SumOverProcesses(torch.autograd.Function):
    """A sum over all processes, whose derivative is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        torch.distributed.all_reduce(total)
        return total

"""Adaptive polyphase sampling: keep the phase of the largest norm."""

from __future__ import annotations

from torch import Tensor, nn

from dtwpt.checks import as_mode
from dtwpt.nn.pooling.checks import as_blur, as_step, check_divisible, check_maps
from dtwpt.nn.pooling.filtering import binomial, filtered
from dtwpt.nn.pooling.phases import Select, as_select, selected, take_phase
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["Polyphase", "PolyphasePool2d"]


class Polyphase(nn.Module):
    """Base of poolings that keep one phase of each image; ``choose`` says which.

    Parameters
    ----------
    stride, blur, select_on, mode, return_phase
        As in :class:`PolyphasePool2d`.
    """

    def __init__(
        self, stride: int, blur: int, select_on: str, mode: str, return_phase: bool
    ) -> None:
        super().__init__()
        self.stride, self.blur, self.mode = as_step(stride), as_blur(blur), as_mode(mode)
        if select_on not in ("before", "after"):
            raise ValueError(f'select_on must be "before" or "after", got {select_on!r}')
        self.select_on = select_on
        self.return_phase = return_phase

    def choose(self, x: Tensor) -> Tensor:
        """Return the phase of each image, (N,), or the weights of its phases, (N, s * s)."""
        raise NotImplementedError

    @leaf
    def forward(self, x: Tensor, phase: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the phase of each image that is chosen, or the one that is given.

        Parameters
        ----------
        x : Tensor, shape (N, C, H, W)
        phase : Tensor, optional
            What another pooling returned with ``return_phase=True``.

        Returns
        -------
        Tensor, shape (N, C, H / stride, W / stride), or (Tensor, Tensor)
            With ``return_phase=True`` the phase too: int64 of shape (N,), or weights of shape
            (N, stride ** 2).
        """
        check_maps(x)
        check_divisible(x, self.stride)
        with full_dtype(x):
            smooth = filtered(x, binomial(self.blur), self.mode)
            if phase is None:
                phase = self.choose(x if self.select_on == "before" else smooth)
            out = take_phase(smooth, phase, self.stride)
        return (out, phase) if self.return_phase else out

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return (
            f"stride={self.stride}, blur={self.blur}, select_on={self.select_on!r}, "
            f"mode={self.mode!r}"
        )


class PolyphasePool2d(Polyphase):
    """Subsample at the phase of the largest norm (APS).

    Nothing is learned. Exact: a circular shift of the input by any whole number of pixels shifts
    the output circularly and changes nothing else. A network is exact if all of it is: see
    :func:`replace_downsampling`.

    Parameters
    ----------
    stride : int, default: 2
        At least 2.
    select : {"l2", "l1", "linf", "l1min", "l2min"} or callable
        Norm over all channels and positions of an image; the phase of the largest one is kept, with
        "min" the smallest. Or a function from phases, (N, stride ** 2, C, h, w), to scores,
        (N, stride ** 2).
    blur : int, default: 1
        Taps of a binomial filter that is applied before subsampling, 1 to 7; 1 does not blur.
    select_on : {"before", "after"}
        Whether the norm is that of the maps before the blur or after it.
    mode : {"periodic", "symmetric", "reflect", "replicate", "zero"}
        Padding mode of the blur; exact with "periodic" alone.
    return_phase : bool, default: False
        Return ``(output, phase)``, for a second branch or for :class:`PolyphaseUpsample2d`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, the input is no batch of floating-point maps, or its height or
        width is no multiple of the stride.

    Notes
    -----
    A. Chaman, I. Dokmanic, "Truly Shift-Invariant Convolutional Neural Networks", CVPR 2021,
    equation 5. Norms are computed in float32 at least, also under autocast. Images in which two
    phases have equal norms are not shifted exactly: all of them with "l1" after a blur if they are
    nowhere negative, as the blur makes sums of phases equal. The gradient is that of the pixels
    that are kept.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import PolyphasePool2d
    >>> x = torch.rand(1, 16, 8, 8, dtype=torch.float64)
    >>> pool = PolyphasePool2d()
    >>> y, shifted = pool(x), pool(x.roll(1, -1))
    >>> any(torch.equal(shifted, y.roll(k, -1)) for k in (0, 1))
    True
    """

    def __init__(
        self,
        stride: int = 2,
        select: Select = "l2",
        blur: int = 1,
        select_on: str = "before",
        mode: str = "periodic",
        return_phase: bool = False,
    ) -> None:
        super().__init__(stride, blur, select_on, mode, return_phase)
        self.select = as_select(select)

    def choose(self, x: Tensor) -> Tensor:
        """Return the phase of each image, int64 of shape (N,)."""
        return selected(x, self.stride, self.select)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return f"{super().extra_repr()}, select={self.select!r}"

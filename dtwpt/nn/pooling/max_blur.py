"""Max pooling with a blur before subsampling, a common baseline."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.checks import as_pair
from dtwpt.nn.pooling.checks import as_blur
from dtwpt.nn.pooling.filtering import binomial, filtered
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf
from dtwpt.nn.windows import reach_beyond

__all__ = ["MaxBlurPool2d"]


class MaxBlurPool2d(nn.Module):
    """Anti-aliased max pooling: a maximum at every pixel, then a blur, then subsampling.

    Replaces :class:`torch.nn.MaxPool2d` with the same ``kernel_size``, ``stride``, ``padding`` and
    ``ceil_mode``: its output has the same shape for every input size.

    Parameters
    ----------
    kernel_size : int or (int, int), optional
        Window of the maximum, (rows, columns). Without one, the pooling of a ResNet:
        ``MaxBlurPool2d()`` is ``MaxBlurPool2d(3, stride=2, padding=1)``.
    stride : int or (int, int), optional
        Subsampling after the blur; default: ``kernel_size``, as in ``MaxPool2d``.
    padding : int or (int, int), optional
        Rows and columns of minus infinity around the input, at most half the window; default: 0,
        as in ``MaxPool2d``.
    ceil_mode : bool, default: False
        Whether a last window that reaches beyond the padding counts too.
    blur : int, default: 4
        Taps of the binomial filter in each direction, 1 to 7; 1 does not blur.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input has another shape than (N, C, H, W) or (C, H, W),
        is not of a floating-point dtype or is smaller than the window.

    See Also
    --------
    torch.nn.MaxPool2d : the pooling that it replaces.

    Notes
    -----
    From R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019. The map of
    maxima is padded in mode "reflect", even where the filter is longer than the map. With an even
    number of taps the blur is centred half a pixel below and to the right, as in the paper.

    Nothing is learned or stored: there is no parameter and no buffer. The output has the dtype of
    the input, also under autocast.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import MaxBlurPool2d
    >>> pool = MaxBlurPool2d(kernel_size=3, stride=2, padding=1)
    >>> pool(torch.ones(1, 64, 112, 112)).shape
    torch.Size([1, 64, 56, 56])
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int] | None = None,
        stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] | None = None,
        ceil_mode: bool = False,
        *,
        blur: int = 4,
    ) -> None:
        super().__init__()
        if kernel_size is None:
            kernel_size = 3
            stride = 2 if stride is None else stride
            padding = 1 if padding is None else padding
        stride = kernel_size if stride is None else stride
        padding = 0 if padding is None else padding
        self.kernel_size = as_pair(kernel_size, "kernel_size")
        self.stride = as_pair(stride, "stride")
        self.padding = as_pair(padding, "padding", 0)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(
                f"padding must be at most half of kernel_size {kernel_size!r}, got {padding!r}"
            )
        if not isinstance(ceil_mode, bool):
            raise TypeError(f"ceil_mode must be True or False, got {ceil_mode!r}")
        self.ceil_mode = ceil_mode
        self.blur = as_blur(blur)

    @property
    def taps(self) -> Tensor:
        """Weights of the blur along one axis, shape (blur,), float32 on the CPU."""
        return torch.tensor(binomial(self.blur), dtype=torch.float32, device="cpu")

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Pool a batch of maps.

        Parameters
        ----------
        x : Tensor, shape (N, C, H, W) or (C, H, W)

        Returns
        -------
        Tensor, shape (N, C, H', W') or (C, H', W')
        """
        if x.ndim not in (3, 4):
            raise ValueError(f"x must have shape (N, C, H, W) or (C, H, W), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise TypeError(f"x must be of a floating-point dtype, got {x.dtype}")
        # A window may reach beyond the padding in ceil_mode, but not by a whole stride.
        slack = [stride - 1 if self.ceil_mode else 0 for stride in self.stride]
        sizes = zip(x.shape[-2:], self.padding, slack, self.kernel_size, strict=True)
        if any(side + 2 * p + more < k for side, p, more, k in sizes):
            raise ValueError(
                f"x of {x.shape[-2]} x {x.shape[-1]} pixels with padding {self.padding} is smaller "
                f"than kernel_size {self.kernel_size}"
            )
        with full_dtype(x):  # a pooling keeps the dtype
            return filtered(self._maxima(x), binomial(self.blur), "reflect", self.stride)

    def _maxima(self, x: Tensor) -> Tensor:
        if self.ceil_mode:
            geometry = zip(self.kernel_size, self.stride, self.padding, strict=True)
            below, right = (
                reach_beyond(side, *axis) for side, axis in zip(x.shape[-2:], geometry, strict=True)
            )
            x = functional.pad(x, (0, right, 0, below), value=-math.inf)
        return functional.max_pool2d(x, self.kernel_size, 1, self.padding)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"ceil_mode={self.ceil_mode}, blur={self.blur}"
        )

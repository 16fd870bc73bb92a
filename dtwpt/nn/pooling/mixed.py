"""Translation invariant polyphase sampling: phases mixed channel by channel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dtwpt.checks import as_count
from dtwpt.nn.pooling.borders import padded
from dtwpt.nn.pooling.checks import as_step, check_maps
from dtwpt.nn.precision import full_dtype
from dtwpt.nn.symbolic import leaf

__all__ = ["MixedPolyphasePool2d", "tips_loss"]


class MixedPolyphasePool2d(nn.Module):
    """Mix the phases of each channel with weights that are predicted from it (TIPS).

    Not exact: the weights come from means over parts of the image, which a shift changes. With
    equal weights it is average pooling, the control to compare with.

    Parameters
    ----------
    channels : int
    stride : int, default: 2
        At least 2.
    shift : int, optional
        Largest random shift, in pixels, of the maps that :func:`tips_loss` compares with in
        training; default: a quarter of the height and of the width.
    how : {"fill", "roll"}, default: "fill"
        Whether zeros come in behind that shift, or it is circular.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the input is no batch of floating-point maps of that many
        channels.

    Notes
    -----
    S. Saha, T. Gokhale, "Improving Shift Invariance in Convolutional Neural Networks with
    Translation Invariant Polyphase Sampling", WACV 2025. Of each channel, in its own filters:
    ``psi = relu(conv 3 x 3)``, padded with zeros; its means over stride x stride parts of equal
    size, times a number, softmax: the weights. Mean (a, b), row a of parts, is the weight of phase
    ``x[:, :, b::stride, a::stride]``, the order of the published code. Sides that are no multiple
    of the stride are mirrored beyond their ends. ``10 * channels`` parameters.

    Shape: (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride)).

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import MixedPolyphasePool2d
    >>> MixedPolyphasePool2d(16)(torch.rand(1, 16, 9, 8)).shape
    torch.Size([1, 16, 5, 4])
    """

    def __init__(
        self, channels: int, stride: int = 2, shift: int | None = None, how: str = "fill"
    ) -> None:
        super().__init__()
        self.channels, self.stride = as_count(channels, "channels"), as_step(stride)
        self.shift = None if shift is None else as_count(shift, "shift")
        if how not in ("fill", "roll"):
            raise ValueError(f'how must be "fill" or "roll", got {how!r}')
        self.how = how
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.scale = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        # Of the last forward in training: mean of 1 - |weights|, and error of psi as shifted maps.
        self.losses: tuple[Tensor, Tensor] | None = None

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of the phases, shape (N, C, s, s), and psi, (N, C, H, W).

        Parameters
        ----------
        x : Tensor, shape (N, C, H, W)
            H and W multiples of the stride.
        """
        s, (n, channels, height, width) = self.stride, x.shape
        psi = functional.relu(
            functional.conv2d(x, self.conv.weight.to(x.dtype), padding=1, groups=channels)
        )
        means = psi.reshape(n, channels, s, height // s, s, width // s).mean((3, 5))
        logits = means * self.scale.weight.to(x.dtype).reshape(1, -1, 1, 1)
        weights = torch.unflatten(logits.flatten(2).softmax(2), 2, (s, s))
        return weights.transpose(2, 3), psi

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed phases."""
        check_maps(x, self.channels)
        s = self.stride
        with full_dtype(x):
            full = x.to(torch.promote_types(x.dtype, torch.float32))
            below, right = -x.shape[2] % s, -x.shape[3] % s
            full = padded(full, (0, 0), (below, right), "reflect")
            weights, psi = self.weights(full)
            if self.training:
                sharpness = (1 - weights.flatten(2).norm(dim=2)).mean()
                target = self._shifted(full.detach())
                self.losses = sharpness, functional.mse_loss(psi, target)
            n, channels, height, width = full.shape
            split = full.reshape(n, channels, height // s, s, width // s, s)
            out: Tensor = (split * weights[:, :, None, :, None, :]).sum((3, 5))
        return out.to(x.dtype)

    def _shifted(self, x: Tensor) -> Tensor:
        """Return all maps shifted alike, by a random number of rows and of columns."""
        for axis in (2, 3):
            side = x.shape[axis]
            most = side // 4 if self.shift is None else min(self.shift, side)
            offset = torch.randint(-most, most + 1, (1,), device=x.device)
            positions = torch.arange(side, device=x.device) - offset
            moved = x.index_select(axis, positions % side)
            if self.how == "fill":
                inside = ((positions >= 0) & (positions < side)).to(x.dtype)
                moved = moved * inside.reshape((-1, 1) if axis == 2 else (-1,))
            x = moved
        return x

    def __getstate__(self) -> dict[str, Any]:
        # Losses belong to a graph, which can be neither copied nor pickled.
        return self.__dict__ | {"losses": None}

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return f"{self.channels}, stride={self.stride}, shift={self.shift}, how={self.how!r}"


def tips_loss(model: nn.Module, alpha: float = 0.35, undo: bool = True) -> Tensor:
    """Return the losses of every :class:`MixedPolyphasePool2d` of a network.

    Of the last forward in training. The loss of the paper is
    ``(1 - alpha) * task + tips_loss(model, alpha, undo=epoch >= 0.4 * epochs)``.

    Parameters
    ----------
    model : torch.nn.Module
    alpha : float, default: 0.35
        Weight of the second loss, 0 to 1.
    undo : bool, default: True
        Whether the second loss counts; the published training begins without it.

    Returns
    -------
    Tensor, scalar
        Mean over layers, images and channels of ``1 - |weights|``, which keeps the weights from
        being equal, plus ``alpha`` times the mean over layers of the squared error of psi as a
        prediction of the shifted maps.

    Raises
    ------
    ValueError
        If alpha is not from 0 to 1, or the network has no such layer that has run in training.

    Notes
    -----
    As in the published code. The paper prints ``1 - stride ** 2`` times the norm of the weights for
    the first loss. Gradients do not flow into the maps that psi is compared with.

    Examples
    --------
    >>> import torch
    >>> from dtwpt.nn import MixedPolyphasePool2d
    >>> from dtwpt.nn.pooling import tips_loss
    >>> pool = MixedPolyphasePool2d(4)
    >>> _ = pool(torch.rand(2, 4, 8, 8))
    >>> bool(tips_loss(pool) > 0)
    True
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha!r}")
    losses = [
        module.losses
        for module in model.modules()
        if isinstance(module, MixedPolyphasePool2d) and module.losses is not None
    ]
    if not losses:
        raise ValueError("the network has no MixedPolyphasePool2d that has run in training mode")
    sharpness = torch.stack([first for first, _ in losses]).mean()
    if not undo:
        return sharpness
    return sharpness + alpha * torch.stack([second for _, second in losses]).mean()

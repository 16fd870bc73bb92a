"""Layers with poolings that replace subsampling layers."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from dtwpt.nn.pooling.borders import padded
from dtwpt.nn.pooling.polyphase import Polyphase, PolyphasePool2d
from dtwpt.nn.symbolic import leaf
from dtwpt.nn.windows import reach_beyond

__all__ = [
    "FollowingPool2d",
    "LeadingPool2d",
    "PhaseLink",
    "Pooled2d",
    "PooledConv2d",
    "PooledMax2d",
]


class PhaseLink(nn.Module):
    """Passes the phase that one pooling chose to the next one.

    A module, so that each copy of a network has its own links. Not thread-safe.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase: Tensor | None = None

    def put(self, phase: Tensor) -> None:
        """Store a phase."""
        self.phase = phase

    def take(self) -> Tensor:
        """Return the phase and forget it."""
        phase, self.phase = self.phase, None
        if phase is None:
            raise RuntimeError("the shortcut of a block was called before its main branch")
        return phase

    def __getstate__(self) -> dict[str, Any]:
        # Discards what a failed forward left.
        return self.__dict__ | {"phase": None}


class LeadingPool2d(nn.Module):
    """Pooling of a block's main branch, which passes its phase to the shortcut's.

    Parameters
    ----------
    pool : Polyphase
    link : PhaseLink
    """

    def __init__(self, pool: Polyphase, link: PhaseLink) -> None:
        super().__init__()
        pool.return_phase = True
        self.pool, self.link = pool, link

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the phase of each image that the pooling chooses."""
        out: Tensor
        out, phase = self.pool(x)
        self.link.put(phase)
        return out


class FollowingPool2d(nn.Module):
    """Pooling of a block's shortcut, at the phase of its main branch.

    Parameters
    ----------
    pool : Polyphase
        The one of the main branch.
    link : PhaseLink
    """

    def __init__(self, pool: Polyphase, link: PhaseLink) -> None:
        super().__init__()
        self.pool = PolyphasePool2d(pool.stride, blur=pool.blur, mode=pool.mode)
        self.link = link

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return the phase of each image in the main branch."""
        out: Tensor = self.pool(x, self.link.take())
        return out


class _Holder(nn.Module):
    """Base of layers with a pooling before or after their own operation."""

    before: nn.Module | None
    after: nn.Module | None

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        # The state of the original network has no poolings: theirs is kept.
        for name in ("before", "after"):
            pool, start = getattr(self, name), f"{prefix}{name}."
            if pool is not None and not any(key.startswith(start) for key in state_dict):
                own = pool.state_dict()
                state_dict.update((start + key, value.detach()) for key, value in own.items())
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


class Pooled2d(_Holder):
    """A pooling alone, in place of an average pooling or of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.after = None

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled maps."""
        x = x if self.before is None else self.before(x)
        return x if self.after is None else self.after(x)


class PooledConv2d(_Holder, nn.Conv2d):
    """Convolution with a pooling before or after it.

    Its weights have the same names as in the original convolution.
    """

    around: tuple[tuple[int, int], tuple[int, int]] | None

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(
            "PooledConv2d is made from a convolution by replace_downsampling, and cannot be built "
            "from arguments. If this comes from an adapter (LoRA), which would add convolutions "
            "without the pooling: leave this layer out of its target modules"
        )

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PooledConv2d:
        """Return a convolution with the parameters, hooks and all other state of ``conv``."""
        made = cls.__new__(cls)
        made.__dict__.update(conv.__dict__)
        made._modules = dict(conv._modules)
        made.before = made.after = made.around = None
        return made

    def make_circular(self) -> None:
        """Pad circularly, so that the output of stride 1 is as large as the input."""
        (height, width), (down, across) = self.kernel_size, self.dilation
        if isinstance(self.padding, str):
            raise ValueError(f"padding must be in pixels, got {self.padding!r}")
        top, left = self.padding
        self.around = (top, left), ((height - 1) * down - top, (width - 1) * across - left)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of pooled maps, or the pooled convolution."""
        x = input if self.before is None else self.before(input)
        if self.around is None:
            x = super().forward(x)
        else:
            x = functional.conv2d(
                padded(x, *self.around, "periodic"),
                self.weight,
                self.bias,
                self.stride,
                0,
                self.dilation,
                self.groups,
            )
        return x if self.after is None else self.after(x)


class PooledMax2d(_Holder):
    """Maximum at every pixel with a pooling before and after it.

    Parameters
    ----------
    kernel_size, padding : (int, int)
        Window of the maximum, rows and columns.
    stride : (int, int), optional
        Of the max pooling that it replaces, if that has ``ceil_mode``.
    circular : bool
        Whether the window is padded circularly, so that the maxima are as large as the input.
    """

    def __init__(
        self,
        kernel_size: tuple[int, int],
        padding: tuple[int, int],
        stride: tuple[int, int] | None,
        circular: bool,
    ) -> None:
        super().__init__()
        self.kernel_size, self.padding = kernel_size, padding
        self.stride, self.circular = stride, circular
        self.before = self.after = None

    @leaf
    def forward(self, x: Tensor) -> Tensor:
        """Return pooled maxima."""
        x = x if self.before is None else self.before(x)
        (height, width), (top, left) = self.kernel_size, self.padding
        if self.circular:
            x = padded(x, (top, left), (height - 1 - top, width - 1 - left), "periodic")
            x = functional.max_pool2d(x, (height, width), 1)
        else:
            if self.stride is not None:
                below = reach_beyond(x.shape[2], height, self.stride[0], top)
                right = reach_beyond(x.shape[3], width, self.stride[1], left)
                x = functional.pad(x, (0, right, 0, below), value=-math.inf)
            x = functional.max_pool2d(x, (height, width), 1, (top, left))
        return x if self.after is None else self.after(x)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return f"kernel_size={self.kernel_size}, padding={self.padding}, circular={self.circular}"

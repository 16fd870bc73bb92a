"""Layers with a pooling before or after them, in the place of strided ones."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from dtwpt.nn.pooling.borders import padded
from dtwpt.nn.pooling.polyphase import Polyphase, PolyphasePool2d

__all__ = ["FollowingPool2d", "LeadingPool2d", "PhaseLink", "PooledConv2d", "PooledMax2d"]


class PhaseLink(nn.Module):
    """The phase that a pooling chose, until the one that follows it takes it.

    A module, so that copies of a network have links of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase: Tensor | None = None

    def put(self, phase: Tensor) -> None:
        """Keep a phase."""
        self.phase = phase

    def take(self) -> Tensor:
        """Return the phase, which is not kept any longer."""
        phase, self.phase = self.phase, None
        if phase is None:
            raise RuntimeError("the shortcut of a block was called before its main branch")
        return phase


class LeadingPool2d(nn.Module):
    """Pooling of a block's main branch, which tells the shortcut's the phase.

    Parameters
    ----------
    pool : Polyphase
    link : PhaseLink
    """

    def __init__(self, pool: Polyphase, link: PhaseLink) -> None:
        super().__init__()
        pool.return_phase = True
        self.pool, self.link = pool, link

    def forward(self, x: Tensor) -> Tensor:
        """Return the phase of each image that the pooling chooses."""
        out, phase = self.pool(x)
        self.link.put(phase)
        return out  # type: ignore[no-any-return]


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

    def forward(self, x: Tensor) -> Tensor:
        """Return the phase of each image that the main branch has."""
        out: Tensor = self.pool(x, self.link.take())
        return out


class PooledConv2d(nn.Conv2d):
    """Convolution with a pooling before or after it.

    Its weights have the names that they had in the convolution that it is made from.
    """

    before: nn.Module | None
    after: nn.Module | None
    around: tuple[tuple[int, int], tuple[int, int]] | None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PooledConv2d:
        """Return a convolution with the parameters, the hooks and all else of ``conv``."""
        made = cls.__new__(cls)
        made.__dict__.update(conv.__dict__)
        made._modules = dict(conv._modules)
        made.before = made.after = made.around = None
        return made

    def make_circular(self) -> None:
        """Pad circularly, so that the output of stride 1 is as large as the input."""
        if isinstance(self.padding, str):
            raise ValueError(f"padding={self.padding!r} of a convolution is not known")
        (top, left), (height, width) = self.padding, self.kernel_size
        down, across = self.dilation
        self.around = (top, left), ((height - 1) * down - top, (width - 1) * across - left)

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

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        keep_pools(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


class PooledMax2d(nn.Module):
    """Maximum at every pixel, then a pooling, in the place of a strided ``MaxPool2d``.

    Parameters
    ----------
    kernel_size, padding : (int, int)
        Window of the maximum, rows and columns.
    circular : bool
        Whether the window is padded circularly, so that the maxima are as large as the input.
    """

    def __init__(
        self, kernel_size: tuple[int, int], padding: tuple[int, int], circular: bool
    ) -> None:
        super().__init__()
        self.kernel_size, self.padding, self.circular = kernel_size, padding, circular
        self.before: nn.Module | None = None
        self.after: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled maxima."""
        if self.before is not None:
            x = self.before(x)
        (height, width), (top, left) = self.kernel_size, self.padding
        if self.circular:
            x = padded(x, (top, left), (height - 1 - top, width - 1 - left), "periodic")
            top = left = 0
        x = functional.max_pool2d(x, (height, width), 1, (top, left))
        return x if self.after is None else self.after(x)

    def extra_repr(self) -> str:
        """Return the arguments, as ``repr`` shows them."""
        return f"kernel_size={self.kernel_size}, padding={self.padding}, circular={self.circular}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **options: Any
    ) -> None:
        keep_pools(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **options)


def keep_pools(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """Add the state of a module's poolings to a state that has none: that of the original."""
    for name in ("before", "after"):
        pool = getattr(module, name, None)
        if isinstance(pool, nn.Module):
            start = f"{prefix}{name}."
            if not any(key.startswith(start) for key in state_dict):
                own = pool.state_dict()
                state_dict.update((start + key, value.detach()) for key, value in own.items())

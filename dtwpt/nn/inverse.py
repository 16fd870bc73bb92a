"""The inverse transform as one operation of a compiled or exported graph."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dtwpt.arrays import copy, full_precision
from dtwpt.plane import plane_for
from dtwpt.transform import idtcwpt2
from dtwpt.wavelets import Wavelet

__all__ = ["packet_synthesis", "wavelet_text"]


def packet_synthesis(
    c: Tensor, height: int, width: int, depth: int, wavelet: str, mode: str
) -> Tensor:
    """Apply :func:`dtwpt.idtcwpt2`; the wavelet as :func:`wavelet_text` writes it.

    What it solves at the borders depends on the size in a way that no graph holds. While torch
    traces, it is therefore one operation.
    """
    if torch.compiler.is_compiling() or c.device.type == "meta":
        out: Tensor = _synthesis(c, height, width, depth, wavelet, mode)
        return out
    x: Tensor = idtcwpt2(c, (height, width), _wavelet(wavelet), mode)
    return x


def wavelet_text(wavelet: Wavelet) -> str:
    """Return a wavelet in a type that an operation of torch can take."""
    return json.dumps([wavelet.low.tolist(), wavelet.high.tolist()])


@lru_cache(maxsize=8)
def _wavelet(text: str) -> Wavelet:
    return Wavelet.from_taps(*json.loads(text))


@torch.library.custom_op("dtwpt::idtcwpt2", mutates_args=())
def _synthesis(c: Tensor, height: int, width: int, depth: int, wavelet: str, mode: str) -> Tensor:
    x: Tensor = idtcwpt2(c, (height, width), _wavelet(wavelet), mode)
    return x


@torch.library.custom_op("dtwpt::idtcwpt2_adjoint", mutates_args=())
def _synthesis_adjoint(x: Tensor, depth: int, wavelet: str, mode: str) -> Tensor:
    height, width = x.shape[-2:]
    plane = plane_for(height, width, depth, _wavelet(wavelet), 2**depth, mode)
    with full_precision(x):
        c: Tensor = plane.analyse(plane.solve(copy(x.reshape(-1, height, width))))
    return c.reshape(*x.shape[:-2], *c.shape[1:])


@_synthesis.register_fake
def _(c: Tensor, height: int, width: int, depth: int, wavelet: str, mode: str) -> Tensor:
    return c.new_empty((*c.shape[:-5], height, width), dtype=c.dtype.to_real())


@_synthesis_adjoint.register_fake
def _(x: Tensor, depth: int, wavelet: str, mode: str) -> Tensor:
    step = 2**depth
    cells = ((n - 1) // step + 1 for n in x.shape[-2:])
    return x.new_empty((*x.shape[:-2], 2, step, step, *cells), dtype=x.dtype.to_complex())


# Each is the other's derivative.


def _remember_synthesis(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.rest = inputs[3:]


def _synthesis_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _synthesis_adjoint(grad, *ctx.rest), None, None, None, None, None


def _remember_adjoint(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.rest = inputs
    ctx.size = x.shape[-2:]


def _adjoint_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _synthesis(grad, *ctx.size, *ctx.rest), None, None, None


_synthesis.register_autograd(_synthesis_backward, setup_context=_remember_synthesis)
_synthesis_adjoint.register_autograd(_adjoint_backward, setup_context=_remember_adjoint)

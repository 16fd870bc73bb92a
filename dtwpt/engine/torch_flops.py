"""Formulas with which ``torch.utils.flop_counter`` counts the operators of torch."""

from __future__ import annotations

import math
from typing import Any

from torch.utils.flop_counter import register_flop_formula

from dtwpt.engine.spec import parse
from dtwpt.engine.torch_ops import ops as _ops


@register_flop_formula([_ops.analyse, _ops.modulus, _ops.rmax])
def _analyse(x: Any, text: str, size: Any, kind: str = "", *_: Any, **__: Any) -> int:
    analysis = parse(text)
    ndim = analysis.ndim
    real = kind == "real" or analysis.pool is not None
    cells = [analysis.cells(n) for n in size] if analysis.pool and kind != "real" else size
    flops: int = (
        2 * math.prod(x[: len(x) - ndim]) * analysis.macs(tuple(x[-ndim:]), tuple(cells), real)
    )
    return flops


@register_flop_formula(_ops.adjoint)
def _adjoint(c: Any, text: str, shape: Any, kind: str, *_: Any, **__: Any) -> int:
    analysis = parse(text)
    inner = len(analysis.output(kind, tuple(shape)))  # type: ignore[arg-type]
    batch = math.prod(c[: len(c) - inner])
    flops: int = 2 * batch * analysis.macs(tuple(shape), tuple(c[-analysis.ndim :]), kind == "real")
    return flops


@register_flop_formula(_ops.modulus_backward)
def _modulus_backward(x: Any, grad: Any, text: str, *_: Any, **__: Any) -> int:
    analysis = parse(text)
    ndim = analysis.ndim
    once = analysis.macs(tuple(x[-ndim:]), tuple(grad[-ndim:]))
    flops: int = 4 * math.prod(x[: len(x) - ndim]) * once
    return flops

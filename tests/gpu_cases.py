"""Checks of the GPU kernels in Triton's interpreter, for :mod:`tests.test_gpu_kernels`.

Run with TRITON_INTERPRET=1, in a process of its own: Triton reads it once, when it is imported.
Prints a JSON object of case: error relative to the largest value.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

from dtwpt.engine import gpu, reference
from dtwpt.engine.spec import Analysis, Axis, Kind

_patch = interpreter._patch_lang_tensor
_empty = torch.empty
_dot = interpreter.InterpreterBuilder.create_dot
_cast = interpreter.InterpreterBuilder.cast_impl


def _patched(tensor: Any, scope: Any) -> None:
    _patch(tensor, scope)
    # For bounds of loops Triton 3.6 takes int() of an array of one element, which NumPy refuses.
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def _patched_dot(builder: Any, a: Any, b: Any, *rest: Any) -> Any:
    # Triton 3.6 keeps bfloat16 as integers of 16 bits, and multiplies these.
    return _dot(builder, _single(a), _single(b), *rest)


def _single(a: Any) -> Any:
    if a.dtype.scalar.name != "bf16":
        return a
    wide = (a.data.astype(np.uint32) << 16).view(np.float32)
    return interpreter.TensorHandle(wide, tl.float32)


def _patched_cast(builder: Any, source: Any, kind: Any) -> Any:
    # Triton 3.6 truncates to bfloat16; a GPU rounds to the nearest, and to even.
    if source.dtype.scalar.name == "fp32" and kind.scalar.name == "bf16":
        bits = source.data.view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return interpreter.TensorHandle(rounded.astype(np.uint16), kind.scalar)
    return _cast(builder, source, kind)


def _poisoned(*args: Any, **kwargs: Any) -> Any:
    return _empty(*args, **kwargs).fill_(float("nan"))


def make(
    depth: int,
    shape: tuple[int, int],
    mode: str = "symmetric",
    packets: tuple[int, ...] | None = None,
    stride: int | None = None,
    pool: int | None = None,
) -> tuple[Analysis, tuple[Axis, ...]]:
    analysis = Analysis(depth, "qshift_b", stride or 2**depth, mode, 2, pool, packets)
    kind: Any = "rmax" if pool else "complex"
    return analysis, analysis.axes(shape, analysis.size(shape), kind)


def images(depth: int, shape: tuple[int, int], *_: Any) -> torch.Tensor:
    """Return one image at depths where the interpreter takes long, or else two."""
    return torch.randn(1 if depth > 2 else 2, *shape)


def error(got: Any, wanted: Any) -> float:
    difference = np.abs(np.asarray(got, wanted.dtype) - wanted).max()
    return float(difference / np.abs(wanted).max())


def forward(
    kind: Kind, *args: Any, dtype: Any = torch.float32, fast: bool = False, **kw: Any
) -> float:
    analysis, axes = make(*args, **kw)
    x = images(*args).to(dtype)
    assert gpu.available(x, analysis)
    out = gpu.analyse(x, analysis, axes, kind, fast=fast)
    wanted = reference.analyse(x.double().numpy(), analysis, axes, kind)
    assert out.shape == wanted.shape
    return error(out if out.is_complex() else out.double(), wanted)


def adjoint(kind: Kind, *args: Any, dtype: Any = torch.float32, **kw: Any) -> float:
    """Return the error of the inner product of the adjoint, and of its values."""
    analysis, axes = make(*args, **kw)
    x = images(*args).double().numpy()
    y = reference.analyse(x, analysis, axes, kind)
    c = torch.randn(y.shape, dtype=torch.complex128 if y.dtype == complex else torch.float64)
    c = c.to(torch.complex64) if c.is_complex() else c.to(dtype)
    back = gpu.adjoint(c, analysis, axes, kind, dtype).double().numpy()
    wide = c.to(torch.complex128 if c.is_complex() else torch.float64).numpy()
    inner = (y.conj() * wide).real.sum()
    product = abs(inner - (x * back).sum()) / np.linalg.norm(y) / np.linalg.norm(wide)
    return max(float(product), error(back, reference.adjoint(wide, analysis, axes, kind)))


def gradient(*args: Any, dtype: Any = torch.float32, **kw: Any) -> float:
    """Compare the gradient of the modulus with that of torch, through the reference."""
    analysis, axes = make(*args, **kw)
    x, y = images(*args).to(dtype), reference
    c = torch.from_numpy(y.analyse(x.double().numpy(), analysis, axes, "complex"))
    g = torch.randn(c.shape).to(dtype)
    # Directions of tiny coefficients are those of rounding.
    g = torch.where(c.abs() > 1e-2 * c.abs().max(), g, 0)
    leaf = c.clone().requires_grad_()
    torch.autograd.backward(leaf.abs(), g.double())
    assert leaf.grad is not None
    wanted = y.adjoint(leaf.grad.numpy(), analysis, axes, "complex")
    return error(gpu.modulus_backward(x, g, analysis, axes).double(), wanted)


def extreme(value: float) -> float:
    analysis, axes = make(2, (20, 24))
    x = torch.randn(2, 20, 24).clamp(-2, 2)
    wanted = value * reference.analyse(x.double().numpy(), analysis, axes, "modulus")
    out = gpu.analyse(value * x, analysis, axes, "modulus")
    finite = np.abs(wanted) < 3e38
    return error(out.double().numpy()[finite], wanted[finite])


def blank() -> float:
    """Blank images give exact zeros, and no gradient."""
    analysis, axes = make(2, (20, 24))
    x = torch.zeros(1, 20, 24)
    out = gpu.analyse(x, analysis, axes, "modulus")
    back = gpu.modulus_backward(x, torch.ones_like(out), analysis, axes)
    zero = gpu.adjoint(torch.zeros_like(out), analysis, axes, "real", torch.float32)
    return float(out.abs().max() + back.abs().max() + zero.abs().max())


def layout() -> float:
    """Strided images, no images, and no channels."""
    analysis, axes = make(2, (20, 24))
    x = torch.randn(2, 24, 20).mT
    same = gpu.analyse(x, analysis, axes, "real") - gpu.analyse(x.clone(), analysis, axes, "real")
    assert gpu.analyse(x[:0], analysis, axes, "complex").shape == (0, 32, 5, 6)
    assert gpu.adjoint(torch.zeros(0, 32, 5, 6), analysis, axes, "real", x.dtype).shape[0] == 0
    none, axes = make(2, (20, 24), packets=())
    assert gpu.analyse(x, none, axes, "modulus").shape == (2, 0, 5, 6)
    assert not gpu.adjoint(torch.zeros(2, 0, 5, 6), none, axes, "real", x.dtype).any()
    return float(same.abs().max())


def infinite() -> float:
    """A value that is not finite reaches the coefficients that see it, not those far away."""
    analysis, axes = make(2, (16, 200))
    x = torch.randn(1, 16, 200)
    clean = gpu.analyse(x, analysis, axes, "modulus")
    x[0, 8, 5] = float("inf")
    out = gpu.analyse(x, analysis, axes, "modulus")
    assert not out[..., :5].isfinite().any()
    return float((out - clean)[..., -8:].abs().max())


def refused() -> float:
    x = torch.zeros(1, 20, 24)
    yes = make(2, (20, 24))[0]
    assert gpu.available(x, yes)
    assert not gpu.available(x.double(), yes)
    assert not gpu.available(x, make(5, (20, 24))[0])
    assert not gpu.available(x, make(3, (20, 24), stride=2)[0])
    return 0.0


def cases() -> dict[str, Any]:
    half, brain = torch.float16, torch.bfloat16
    some = (5, 3, 31, 0, 17)
    table: dict[str, Any] = {"blank": blank, "layout": layout, "infinite": infinite}
    table["refused"] = refused
    for depth, shape in ((1, (37, 44)), (2, (45, 84)), (3, (21, 70)), (4, (20, 33))):
        table[f"modulus {depth}"] = lambda d=depth, s=shape: forward("modulus", d, s)
        table[f"adjoint {depth}"] = lambda d=depth, s=shape: adjoint("parts", d, s)
        if depth < 4:  # the interpreter takes long
            table[f"gradient {depth}"] = lambda d=depth, s=shape: gradient(d, s)
    for mode in ("reflect", "replicate", "periodic", "zero"):
        table[f"complex {mode}"] = lambda m=mode: forward("complex", 2, (33, 41), m)
        table[f"adjoint {mode}"] = lambda m=mode: adjoint("complex", 2, (33, 41), m)
    for shape in ((1, 1), (1, 9), (2, 3), (5, 1)):
        for mode in ("symmetric", "reflect", "periodic"):
            name = f"{shape} {mode}"
            table[f"parts {name}"] = lambda s=shape, m=mode: forward("parts", 2, s, m)
            table[f"adjoint {name}"] = lambda s=shape, m=mode: adjoint("real", 2, s, m)
    for kind in ("complex", "parts", "real", "modulus"):
        table[f"some {kind}"] = lambda k=kind: forward(k, 2, (24, 17), packets=some)
    for kind in ("complex", "real"):
        table[f"adjoint some {kind}"] = lambda k=kind: adjoint(k, 2, (24, 17), packets=some)
    table["gradient some"] = lambda: gradient(2, (24, 17), packets=some)
    for depth in (1, 2, 3, 4):
        pooled = {"stride": 2 ** (depth - 1), "pool": 3}
        table[f"pooled {depth}"] = lambda d=depth, p=pooled: forward("real", d, (17, 20), **p)
        table[f"adjoint pooled {depth}"] = lambda d=depth, p=pooled: adjoint(
            "real", d, (17, 20), **p
        )
    for dtype in (half, brain):
        name = str(dtype)[6:]
        table[f"half {name}"] = lambda t=dtype: forward("modulus", 2, (24, 40), dtype=t)
        table[f"half complex {name}"] = lambda t=dtype: forward("complex", 2, (24, 40), dtype=t)
        table[f"half adjoint {name}"] = lambda t=dtype: adjoint("real", 2, (24, 40), dtype=t)
        table[f"half gradient {name}"] = lambda t=dtype: gradient(2, (24, 40), dtype=t)
    table["half fast"] = lambda: forward("modulus", 2, (24, 40), fast=True)
    for value in (1e38, 1e20, 1e-20, 1e-36):
        table[f"values {value}"] = lambda v=value: extreme(v)
    return table


def main() -> None:
    interpreter._patch_lang_tensor = _patched
    interpreter.InterpreterBuilder.create_dot = _patched_dot
    interpreter.InterpreterBuilder.cast_impl = _patched_cast
    torch.empty = _poisoned
    torch.manual_seed(0)
    torch.set_num_threads(1)
    json.dump({name: case() for name, case in cases().items()}, sys.stdout)


if __name__ == "__main__":
    main()

"""The same functions on torch tensors: agreement with NumPy, derivatives, devices, company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

import dtwpt
from dtwpt.typing import Mode, WaveletName
from tests.strategies import modes, noise, relative_error, seeds, wavelets


@given(
    seeds,
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 4),
    wavelets,
    modes,
    st.sampled_from([(np.float64, 1e-12), (np.float32, 1e-6)]),
)
def test_torch_agrees_with_numpy(
    seed: int, height: int, width: int, depth: int, wavelet: WaveletName, mode: Mode, case: Any
) -> None:
    dtype, tolerance = case
    x = noise(seed, 2, height, width, dtype=dtype)
    t = torch.from_numpy(x)
    functions: list[Any] = [dtwpt.dtcwpt, dtwpt.dtcwpt2, dtwpt.cmod2, dtwpt.rmax2]
    pairs = [
        (function(x, depth, wavelet, mode=mode), function(t, depth, wavelet, mode=mode))
        for function in functions
    ]
    stride = 2 ** (depth - 1)
    pairs.append(
        (
            dtwpt.dtcwpt2(x, depth, wavelet, stride, mode),
            dtwpt.dtcwpt2(t, depth, wavelet, stride, mode),
        )
    )
    c = pairs[1][0]
    pairs.append(
        (
            dtwpt.idtcwpt2(c, (height, width), wavelet, mode),
            dtwpt.idtcwpt2(torch.from_numpy(c), (height, width), wavelet, mode),
        )
    )
    for expected, actual in pairs:
        assert isinstance(actual, torch.Tensor)
        assert not actual.requires_grad
        assert actual.numpy().dtype == expected.dtype
        assert relative_error(actual.numpy(), expected) < tolerance


GEOMETRIES = [
    # (height, width, depth, stride): matrices applied whole, in bands, and one axis of each.
    (5, 7, 2, 4),
    (1, 6, 1, 1),
    (37, 4, 1, 2),
    (4, 40, 1, 1),
]


@pytest.mark.parametrize("mode", ["symmetric", "periodic", "zero"])
@pytest.mark.parametrize(("height", "width", "depth", "stride"), GEOMETRIES)
def test_derivatives(height: int, width: int, depth: int, stride: int, mode: Mode) -> None:
    torch.manual_seed(0)
    x = torch.randn(height, width, dtype=torch.float64, requires_grad=True)
    wavelet: WaveletName = "qshift_06"

    def two(x: torch.Tensor) -> Any:
        return dtwpt.dtcwpt2(x, depth, wavelet, stride, mode)

    def one(x: torch.Tensor) -> Any:
        return dtwpt.dtcwpt(x, depth, wavelet, stride, mode)

    for function in (one, two):
        assert gradcheck(function, x, fast_mode=True)
        assert gradgradcheck(function, x, fast_mode=True)
    c = two(x).detach().requires_grad_()
    d = one(x).detach().requires_grad_()
    library: Any = dtwpt
    if stride == 2**depth:
        inverses = (
            (lambda c: library.idtcwpt2(c, (height, width), wavelet, mode), c),
            (lambda d: library.idtcwpt(d, width, wavelet, mode), d),
        )
        for inverse, coefficients in inverses:
            assert gradcheck(inverse, coefficients, fast_mode=True)
            assert gradgradcheck(inverse, coefficients, fast_mode=True)
    assert gradcheck(lambda x: library.cmod2(x, depth, wavelet, mode), x, fast_mode=True)
    assert gradgradcheck(lambda x: library.cmod2(x, depth, wavelet, mode), x, fast_mode=True)
    assert gradcheck(lambda x: library.rmax2(x, depth, wavelet, mode), x, fast_mode=True)


@settings(max_examples=25)
@given(seeds, st.integers(1, 120), st.integers(1, 300), st.integers(1, 3), modes, st.booleans())
def test_backward_is_the_adjoint(
    seed: int, height: int, width: int, depth: int, mode: Mode, undecimated: bool
) -> None:
    """<A x, c> = <x, A* c>, with A* c what backward returns, in every mode and size."""
    rng = np.random.default_rng(seed)
    stride = 1 if undecimated else None
    x = torch.from_numpy(rng.normal(size=(height, width))).requires_grad_()
    c = dtwpt.dtcwpt2(x, depth, stride=stride, mode=mode)
    d = torch.from_numpy(rng.normal(size=c.shape) + 1j * rng.normal(size=c.shape))
    (adjoint,) = torch.autograd.grad(c, x, d)
    left = torch.sum(c.detach().conj() * d).real.item()
    right = torch.sum(x.detach() * adjoint).item()
    scale = torch.linalg.vector_norm(c.detach()) * torch.linalg.vector_norm(d)
    assert abs(left - right) < 1e-12 * scale.item()


def test_backward_keeps_no_graph_of_the_computation() -> None:
    """Between output and input stand the map and changes of shape, whatever the pieces."""
    x = torch.zeros(3, 200, 300, requires_grad=True)
    nodes: list[Any] = [dtwpt.dtcwpt2(x).grad_fn]
    while nodes[-1].next_functions:
        (following,) = (entry[0] for entry in nodes[-1].next_functions if entry[0] is not None)
        nodes.append(following)
    names = [type(node).__name__ for node in nodes]
    assert names.count("_AnalyseBackward") == 1
    assert set(names) <= {"_AnalyseBackward", "ViewBackward0", "AccumulateGrad"}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func's own
def test_function_transforms() -> None:
    x = torch.randn(2, 20, 30, dtype=torch.float64)
    transform: Any = dtwpt.dtcwpt2

    def energy(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = dtwpt.dtcwpt2(x, mode="periodic").abs().square().sum()
        return out

    y = torch.randn(4, 8, dtype=torch.float64)  # sides that make the frame a Parseval frame
    torch.testing.assert_close(torch.func.grad(energy)(y), 2 * y)
    hessian = torch.func.hessian(energy)(y).reshape(32, 32)
    torch.testing.assert_close(hessian, 2 * torch.eye(32, dtype=torch.float64))
    torch.testing.assert_close(torch.func.vmap(transform)(x), dtwpt.dtcwpt2(x))
    pair: Any = torch.func.jvp(transform, (x,), (3 * x,))
    c, tangent = pair
    torch.testing.assert_close(tangent, 3 * c)


def test_derivative_of_the_modulus_at_zero_is_zero() -> None:
    x = torch.zeros(16, 16, requires_grad=True)
    dtwpt.cmod2(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, torch.zeros_like(x))


@given(
    seeds, st.integers(1, 150), st.integers(1, 150), st.integers(1, 3), st.sampled_from([1, 3, 5])
)
def test_values_are_the_same_with_and_without_derivatives(
    seed: int, height: int, width: int, depth: int, pool: int
) -> None:
    x = torch.from_numpy(noise(seed, height, width))
    with_graph = x.clone().requires_grad_()
    torch.testing.assert_close(
        dtwpt.cmod2(with_graph, depth).detach(), dtwpt.cmod2(x, depth), rtol=1e-12, atol=1e-13
    )
    torch.testing.assert_close(
        dtwpt.rmax2(with_graph, depth, pool=pool).detach(),
        dtwpt.rmax2(x, depth, pool=pool),
        rtol=1e-12,
        atol=1e-13,
    )


def test_gradients_come_through_odd_layouts() -> None:
    x = torch.randn(2, 3, 20, 30, requires_grad=True)
    views = (
        x.transpose(2, 3),
        x.flip(3),
        x[..., ::2],
        x.contiguous(memory_format=torch.channels_last),
        x[:, :1].expand(-1, 3, -1, -1),
    )
    for view in views:
        torch.testing.assert_close(
            dtwpt.dtcwpt2(view), dtwpt.dtcwpt2(view.detach().clone()), rtol=0, atol=0
        )
        c = dtwpt.dtcwpt2(view)
        (expanded,) = torch.autograd.grad(c.real.sum(), x, retain_graph=True)
        (dense,) = torch.autograd.grad(c, x, torch.ones_like(c))
        torch.testing.assert_close(expanded, dense)
    c = dtwpt.dtcwpt2(x).detach()
    torch.testing.assert_close(dtwpt.idtcwpt2(c.conj().conj(), (20, 30)), x.detach())
    torch.testing.assert_close(
        dtwpt.idtcwpt2(c.conj(), (20, 30)), dtwpt.idtcwpt2(c.conj().resolve_conj(), (20, 30))
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (100, 96), (224, 224), (10, 400), (1, 7)])
@pytest.mark.parametrize("depth", [2, 3])
def test_an_image_does_not_feel_its_batch(size: tuple[int, int], depth: int) -> None:
    x = torch.rand(21, *size, generator=torch.Generator().manual_seed(0))
    for function in (dtwpt.cmod2, dtwpt.rmax2, dtwpt.dtcwpt2, dtwpt.dtcwpt):
        together = function(x, depth)
        for part in (slice(0, 1), slice(6, 9), slice(20, 21)):
            assert torch.equal(function(x[part], depth), together[part])


def test_autocast_leaves_the_precision_alone() -> None:
    x = torch.randn(2, 100, 40)
    for needs_grad in (False, True):
        x.requires_grad_(needs_grad)
        for function in (dtwpt.dtcwpt, dtwpt.dtcwpt2, dtwpt.cmod2, dtwpt.rmax2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = function(x)
            torch.testing.assert_close(out, function(x), rtol=0, atol=0)
    c = dtwpt.dtcwpt2(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (gradient,) = torch.autograd.grad(c, x, c)
        assert gradient.dtype == torch.float32
        back = dtwpt.idtcwpt2(c, (100, 40))
    torch.testing.assert_close(back, x)


def test_matmul_precision_leaves_the_transform_alone() -> None:
    x = torch.randn(2, 150, 100, requires_grad=True)
    functions: list[Any] = [dtwpt.dtcwpt2, dtwpt.cmod2, dtwpt.rmax2]
    expected = [function(x.detach()) for function in functions]
    torch.set_float32_matmul_precision("medium")
    try:
        for function, value in zip(functions, expected, strict=True):
            torch.testing.assert_close(function(x.detach()), value, rtol=0, atol=0)
        c = dtwpt.dtcwpt2(x)
        torch.testing.assert_close(dtwpt.idtcwpt2(c, (150, 100)), x, rtol=1e-5, atol=1e-5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_integer_tensors_are_scaled_as_arrays_are() -> None:
    x = torch.randint(0, 256, (9, 9), dtype=torch.uint8)
    np.testing.assert_allclose(dtwpt.dtcwpt2(x).numpy(), dtwpt.dtcwpt2(x.numpy()), atol=1e-6)
    with pytest.raises(TypeError, match="got complex64"):
        dtwpt.dtcwpt2(x.to(torch.complex64))
    for dtype in (torch.float16, torch.bfloat16):  # computed in float32
        half = torch.rand(9, 9).to(dtype)
        assert torch.equal(dtwpt.cmod2(half), dtwpt.cmod2(half.float()).to(dtype))
        assert dtwpt.dtcwpt2(half).dtype == torch.complex64
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., H, W\), got \(4,\)"):
        dtwpt.rmax2(torch.ones(4))
    with pytest.raises(TypeError, match="c must be complex64 or complex128, got float32"):
        dtwpt.idtcwpt2(torch.ones(2, 4, 4, 3, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu() -> None:
    x = torch.randn(2, 3, 150, 40)
    for function in (dtwpt.dtcwpt, dtwpt.dtcwpt2, dtwpt.cmod2, dtwpt.rmax2):
        on_gpu = function(x.cuda())
        assert on_gpu.is_cuda
        torch.testing.assert_close(on_gpu.cpu(), function(x), rtol=1e-4, atol=1e-5)
    c = dtwpt.dtcwpt2(x.cuda())
    torch.testing.assert_close(dtwpt.idtcwpt2(c, (150, 40)).cpu(), x, rtol=1e-4, atol=1e-5)

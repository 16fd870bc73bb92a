"""The numerical contract: the same values whatever surrounds a call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import dtwpt
from dtwpt.engine import cpu
from dtwpt.features import OPERATORS, packet_features
from dtwpt.nn import CMod1d, CMod2d, DTCWPT2d, IDTCWPT2d, RMax2d
from dtwpt.typing import Mode
from tests.strategies import modes, noise, seeds


def inverse(x: Tensor) -> Tensor:
    c = torch.unflatten(torch.complex(x, x.flip(-1)), -3, (2, 4, 4))
    out: Tensor = dtwpt.idtcwpt2(c)
    return out


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "dtcwpt": dtwpt.dtcwpt,
    "cmod": dtwpt.cmod,
    "rmax": dtwpt.rmax,
    "dtcwpt2": dtwpt.dtcwpt2,
    "cmod2": dtwpt.cmod2,
    "rmax2": dtwpt.rmax2,
    "packet_features": packet_features,
    "rmax features": lambda x: packet_features(x, operator="rmax", pool=2),
    "statistics": lambda x: packet_features(x, (1, 2), pool=("mean", "std", "max", 2)),
    "idtcwpt2": inverse,
}


def tensor(name: str, *leading: int, seed: int = 0) -> Tensor:
    shape = (32, 3, 4) if name == "idtcwpt2" else (13, 18)
    return torch.from_numpy(noise(seed, *leading, *shape))


# Bits -------------------------------------------------------------------------------------------


@given(
    seeds, st.integers(1, 4), st.integers(1, 90), st.integers(1, 90), st.integers(1, 3), modes,
    st.sampled_from(["float32", "float64"]),
)  # fmt: skip
@settings(max_examples=40)
def test_bits_depend_on_nothing_but_the_image(
    seed: int, batch: int, height: int, width: int, depth: int, mode: Mode, dtype: str
) -> None:
    """On batch, layout, threads, NumPy or torch, gradients, function or module."""
    x = noise(seed, batch, 1, height, width, dtype=dtype)
    modules: dict[str, Any] = {"cmod2": CMod2d, "rmax2": RMax2d, "dtcwpt2": DTCWPT2d}
    for name, module in modules.items():
        function = getattr(dtwpt, name)
        expected = function(x, depth, mode=mode)
        assert expected.dtype.name.endswith(dtype[-2:]) or name == "dtcwpt2"

        def same(got: Any, wanted: Any = expected, name: str = name) -> None:
            got = got.detach().numpy() if isinstance(got, Tensor) else got
            np.testing.assert_array_equal(got, wanted, name)

        same(function(x[-1:], depth, mode=mode), expected[-1:])
        same(function(np.asfortranarray(x), depth, mode=mode))
        for threads in (1, 3):
            with cpu.threads(threads):
                same(function(x, depth, mode=mode))
        t = torch.from_numpy(x)
        same(function(t, depth, mode=mode))
        same(function(t.clone().requires_grad_(), depth, mode=mode))
        same(function(t.mT.contiguous().mT, depth, mode=mode))
        same(module(depth, mode=mode)(t), expected.reshape(batch, -1, *expected.shape[-2:]))
    for operator in OPERATORS:
        pooled: Any = partial(
            packet_features, depth=depth, operator=operator, pool=("mean", "std", "max"), mode=mode
        )
        expected = pooled(x)
        np.testing.assert_array_equal(pooled(x[-1:]), expected[-1:])
        for threads in (1, 3):
            with cpu.threads(threads):
                np.testing.assert_array_equal(pooled(torch.from_numpy(x)).numpy(), expected)
        got = pooled(torch.from_numpy(x).requires_grad_())
        np.testing.assert_array_equal(got.detach().numpy(), expected)
    signal = x[:, 0, 0]
    one = dtwpt.cmod(signal, depth, mode=mode)
    np.testing.assert_array_equal(dtwpt.cmod(signal[-1], depth, mode=mode), one[-1])
    got = CMod1d(depth, mode=mode)(torch.from_numpy(signal)[:, None])
    np.testing.assert_array_equal(got.numpy(), one)


SETTERS = [
    "torch.set_flush_denormal(True)",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch.set_default_dtype(torch.float64)",
]
SET = """
import sys, torch, dtwpt, dtwpt.nn
from concurrent.futures import ThreadPoolExecutor
from dtwpt.features import packet_features
x = torch.rand(3, 1, 40, 37, dtype=torch.float32)
def results():
    c = dtwpt.dtcwpt2(x)
    z = x.clone().requires_grad_()
    dtwpt.cmod2(z).sum().backward()
    parts = c, dtwpt.cmod2(x), dtwpt.rmax2(x), packet_features(x), dtwpt.dtcwpt(x), z.grad
    there = dtwpt.nn.DTCWPT2d()(x)
    return [*parts, dtwpt.idtcwpt2(c, (40, 37)), dtwpt.nn.IDTCWPT2d()(there, (40, 37))]
before = results()
for setter in sys.argv[1:]:
    exec(setter)
    for now in [results(), *ThreadPoolExecutor(4).map(lambda _: results(), range(8))]:
        assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True)), setter
"""


def test_settings_of_the_process_change_nothing() -> None:
    """One setting after the other, in a process whose settings may stay as they are left."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", SET, *SETTERS], check=True)


def test_threads_do_not_change_each_other() -> None:
    x = noise(0, 4, 150, 130, dtype="float32")
    expected = dtwpt.cmod2(x)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: dtwpt.cmod2(x), range(40)):
            np.testing.assert_array_equal(got, expected)


# The modulus ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-20, 1.0, 1e20, 1e36])
def test_the_modulus_is_accurate_at_every_scale(scale: float) -> None:
    x = (np.random.default_rng(0).random((40, 40)) * scale).astype(np.float32)
    expected = abs(dtwpt.dtcwpt2(x.astype(np.float64)))
    for got in (
        dtwpt.cmod2(x),
        dtwpt.cmod2(torch.from_numpy(x)).numpy(),
        CMod2d()(torch.from_numpy(x)[None, None].requires_grad_()).detach().numpy(),
        torch.compile(CMod2d(), backend="eager")(torch.from_numpy(x)[None, None]).numpy(),
    ):
        error = np.abs(got.reshape(expected.shape) - expected).max()
        assert error < 2e-6 * expected.max() + 1e-44
    c = dtwpt.dtcwpt2(x)
    hypot = np.hypot(c.real.astype(np.float64), c.imag.astype(np.float64))
    np.testing.assert_allclose(dtwpt.cmod2(x), hypot, rtol=3e-7, atol=3e-45)


def test_black_images_have_exact_zeros_and_finite_derivatives() -> None:
    x = torch.zeros(1, 1, 40, 40, requires_grad=True)
    half = torch.cat([torch.rand(1, 1, 20, 40), torch.zeros(1, 1, 20, 40)], 2).requires_grad_()
    assert dtwpt.cmod2(x).abs().max() == 0
    for image in (x, half):
        for function in (dtwpt.cmod2, CMod2d(), packet_features, FUNCTIONS["statistics"]):
            (grad,) = torch.autograd.grad(function(image).sum(), image, create_graph=True)
            (second,) = torch.autograd.grad(grad.square().sum(), image)
            assert torch.isfinite(grad).all()
            assert torch.isfinite(second).all()


# Transforms of functions ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func's own,
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # both
@pytest.mark.parametrize("name", FUNCTIONS)
def test_torch_func(name: str) -> None:
    function = FUNCTIONS[name]
    x, direction = tensor(name, 3), tensor(name, 3, seed=1)
    assert torch.equal(torch.func.vmap(function)(x), function(x))
    assert torch.equal(torch.func.vmap(function, in_dims=1)(x.movedim(0, 1)), function(x))
    pair: Any = torch.func.jvp(function, (x,), (direction,))
    value, tangent = pair
    assert torch.equal(value, function(x))
    step = 1e-6
    numerical = (function(x + step * direction) - function(x - step * direction)) / (2 * step)
    torch.testing.assert_close(tangent, numerical, rtol=1e-5, atol=1e-5)
    _, linear = torch.func.linearize(function, x)
    torch.testing.assert_close(linear(direction), tangent)
    small = x[0, :5, :6] if name != "idtcwpt2" else x[0, :, :1, :2]

    def energy(x: Tensor) -> Tensor:
        out: Tensor = function(x).abs().square().sum()
        return out

    forward = torch.func.jacfwd(energy)(small)
    torch.testing.assert_close(forward, torch.func.grad(energy)(small))
    hessian = torch.func.hessian(energy)(small)
    assert torch.isfinite(hessian).all()
    torch.testing.assert_close(
        hessian, torch.func.jacrev(torch.func.jacrev(energy))(small), rtol=1e-6, atol=1e-8
    )
    module = torch.nn.Sequential(CMod2d())
    called = torch.func.functional_call(module, {}, (tensor("cmod2", 1, 1),))
    assert torch.equal(called, module(tensor("cmod2", 1, 1)))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # of forward derivatives
@pytest.mark.parametrize("name", ["cmod2", "rmax2", "dtcwpt2", "packet_features", "idtcwpt2"])
def test_first_and_second_derivatives(name: str) -> None:
    x = tensor(name).requires_grad_()
    x = (x if name == "idtcwpt2" else x[:7, :9]).detach().requires_grad_()
    function = FUNCTIONS[name]
    assert torch.autograd.gradcheck(function, (x,), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x,), fast_mode=True)


def test_meta_tensors_give_shapes() -> None:
    x = torch.empty(2, 3, 33, 40, device="meta")
    real = torch.zeros(2, 3, 33, 40)
    for name in ("cmod", "rmax", "dtcwpt", "cmod2", "rmax2", "dtcwpt2"):
        got, wanted = getattr(dtwpt, name)(x), getattr(dtwpt, name)(real)
        assert (got.shape, got.dtype, got.device.type) == (wanted.shape, wanted.dtype, "meta")
    c = dtwpt.dtcwpt2(x)
    assert dtwpt.idtcwpt2(c, (33, 40)).shape == x.shape


COLD = """
import torch, dtwpt, dtwpt.nn, warnings
warnings.simplefilter("ignore")
from dtwpt.features import packet_features
def there_and_back(x):
    return dtwpt.idtcwpt2(dtwpt.dtcwpt2(x), (x.shape[-2], x.shape[-1]))
graphs = []
def count(graph, _):
    graphs.append(graph)
    return graph
modules = [dtwpt.nn.CMod2d(packets="gabor"), dtwpt.nn.RMax2d(), dtwpt.nn.CMod1d()]
functions = [dtwpt.cmod2, dtwpt.rmax2, dtwpt.dtcwpt, packet_features, there_and_back]
for function in [*functions, *modules]:
    torch._dynamo.reset()
    graphs.clear()
    compiled = torch.compile(function, backend=count, fullgraph=True, dynamic=True)
    for shape in ((2, 3, 40, 33), (3, 3, 41, 35), (2, 3, 57, 60)):
        x = torch.rand(shape)
        x = x[:, 0] if isinstance(function, dtwpt.nn.CMod1d) else x
        assert torch.equal(compiled(x), function(x)), function
    assert len(graphs) == 1, (function, len(graphs))
"""


def test_functions_and_modules_compile_in_a_fresh_process_once_for_all_sizes() -> None:
    subprocess.run([sys.executable, "-c", COLD], check=True)


# Modules hold no tensor -------------------------------------------------------------------------


def test_nothing_can_happen_to_the_filters() -> None:
    x = torch.rand(1, 3, 32, 30)
    modules: list[Any] = [CMod2d(packets="gabor"), RMax2d(3), DTCWPT2d(packets=[5, 1]), IDTCWPT2d()]
    for module in modules:
        assert not list(module.buffers())
        assert not module.state_dict()
    with torch.device("meta"):
        bank = CMod2d(2)
    bank.load_state_dict(CMod2d(2).state_dict(), assign=True)
    assert torch.equal(bank.to_empty(device="cpu").half()(x), CMod2d(2)(x))


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.masked_greater(np.random.default_rng(0).random((32, 32)), 0.9)
    calls: list[Callable[[], Any]] = [
        lambda: dtwpt.cmod2(masked),
        lambda: dtwpt.cmod2([masked]),
        lambda: dtwpt.rmax2(masked),
        lambda: dtwpt.dtcwpt(masked),
        lambda: packet_features(masked),
        lambda: dtwpt.idtcwpt2(np.ma.masked_less(abs(dtwpt.dtcwpt2(masked.data)), 1) * 1j),
        lambda: dtwpt.idtcwpt(np.ma.masked_less(abs(dtwpt.dtcwpt(masked.data)), 1) * 1j),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="must not be masked"):
            call()

"""Max pooling with a blur: drop-in shape, definition, dtypes, compilation, export."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.autograd import gradcheck

from dtwpt.nn import MaxBlurPool2d
from tests.photographs import crops
from tests.strategies import noise, relative_error, seeds

GEOMETRIES: list[Any] = [
    # (kernel_size, stride, padding)
    (3, 2, 1),
    (2, 2, 0),
    (3, 1, 1),
    (3, 2, 0),
    (5, 3, 2),
    (2, 3, 1),
    (4, 3, 2),
    ((3, 2), (2, 3), (1, 0)),
]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_shape_is_max_pooling_s(geometry: Any, ceil_mode: bool) -> None:
    size, stride, padding = geometry
    pooling = nn.MaxPool2d(size, stride, padding, ceil_mode=ceil_mode)
    sharp = MaxBlurPool2d(size, stride, padding, ceil_mode, blur=1)
    blurred = [MaxBlurPool2d(size, stride, padding, ceil_mode, blur=blur) for blur in (4, 7)]
    refused = 0
    for height in range(1, 41):
        x = torch.from_numpy(noise(height, 1, 2, height, 41 - height, dtype=np.float32))
        try:
            expected = pooling(x)
        except RuntimeError:  # smaller than the window
            refused += 1
            for module in (sharp, *blurred):
                with pytest.raises(ValueError, match="smaller than kernel_size"):
                    module(x)
            continue
        assert torch.equal(sharp(x), expected)  # a single tap does not blur
        for module in blurred:
            output = module(x)
            assert output.shape == expected.shape
            assert output.isfinite().all()
    assert refused < 10


def by_definition(
    x: NDArray[np.float64], kernel: int, stride: int, padding: int, blur: int
) -> NDArray[np.float64]:
    """One map: maxima of windows, mirrored, weighted with Pascal's triangle, subsampled."""
    padded = np.pad(x, padding, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel))
    taps = np.ones(1)
    for _ in range(blur - 1):
        taps = np.convolve(taps, [0.5, 0.5])
    mirrored = np.pad(windows.max((-2, -1)), ((blur - 1) // 2, blur // 2), mode="reflect")
    blurred = np.lib.stride_tricks.sliding_window_view(mirrored, (blur, blur)) @ taps @ taps
    return np.asarray(blurred[::stride, ::stride])


@given(
    seeds,
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([(3, 2, 1), (3, 1, 1), (5, 3, 2), (1, 2, 0)]),
    st.integers(1, 7),
)
def test_is_its_definition(
    seed: int, height: int, width: int, geometry: tuple[int, int, int], blur: int
) -> None:
    x = noise(seed, 3, height, width)
    actual = MaxBlurPool2d(*geometry, blur=blur)(torch.from_numpy(x)).numpy()
    for image, output in zip(x, actual, strict=True):
        assert np.allclose(output, by_definition(image, *geometry, blur), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("blur", range(1, 8))
def test_taps_are_exact_in_every_dtype(blur: int) -> None:
    """The response to a single pixel is the filter, digit by digit."""
    expected = [math.comb(blur - 1, k) / 2 ** (blur - 1) for k in range(blur)]
    assert MaxBlurPool2d(blur=blur).taps.tolist() == expected
    pixel = torch.zeros(1, 1, 19, 19)
    pixel[0, 0, 9, 9] = 1
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        module = MaxBlurPool2d(1, 1, 0, blur=blur).bfloat16().to(dtype)
        first = 9 - blur // 2
        response = module(pixel.to(dtype))[0, 0, first : first + blur, first : first + blur]
        assert response.dtype == dtype
        assert response.tolist() == np.outer(expected, expected).tolist()


def test_defaults_are_max_pooling_s() -> None:
    x = torch.from_numpy(noise(0, 2, 3, 17, 20))
    for size, more in [(2, {}), (3, {}), ((2, 3), {}), (3, {"stride": 2}), (4, {"padding": 1})]:
        assert MaxBlurPool2d(size, **more)(x).shape == nn.MaxPool2d(size, **more)(x).shape  # type: ignore[arg-type]
    assert repr(MaxBlurPool2d()) == repr(MaxBlurPool2d(3, 2, 1))  # the pooling of a ResNet


def test_nothing_is_stored() -> None:
    """What fills, averages, casts or forgets tensors of a module has nothing to spoil."""
    x = torch.rand(2, 3, 17, 20)
    with torch.device("meta"):
        module = MaxBlurPool2d()
    module.load_state_dict({}, assign=True)
    assert [*module.parameters(), *module.buffers()] == []
    assert torch.equal(module.to_empty(device="cpu").half()(x), MaxBlurPool2d()(x))
    y = module(x.requires_grad_())
    y.relu_().sum().backward()  # the output may be overwritten
    assert x.grad is not None


@pytest.mark.parametrize("shape", [(1, 2, 5, 6), (1, 2, 1, 2)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_derivatives(shape: tuple[int, ...], ceil_mode: bool) -> None:
    x = torch.from_numpy(noise(0, *shape)).requires_grad_()
    assert gradcheck(MaxBlurPool2d(ceil_mode=ceil_mode), x)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
def test_dtype_is_kept(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.from_numpy(noise(0, 2, 3, 17, 20))
    expected = MaxBlurPool2d()(x)
    for module in (MaxBlurPool2d(), MaxBlurPool2d().to(dtype)):
        plain = module(x.to(dtype))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = module(x.to(dtype))
        assert plain.dtype == mixed.dtype == dtype
        assert torch.equal(plain, mixed)
        assert relative_error(plain.double().numpy(), expected.numpy()) < tolerance


def test_layout_copies_and_state() -> None:
    module = MaxBlurPool2d(5, 3, 2, ceil_mode=True, blur=3)
    x = torch.from_numpy(noise(0, 2, 3, 17, 20))
    last = module(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last, module(x), rtol=1e-14)
    assert module.state_dict() == {}
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(x), module(x))
    assert repr(module) == (
        "MaxBlurPool2d(kernel_size=(5, 5), stride=(3, 3), padding=(2, 2), ceil_mode=True, blur=3)"
    )
    assert torch.equal(module(x[0]), module(x)[0])
    x[0, 0, 0, 0] = math.nan  # as anywhere in torch: seen where it reaches, and nowhere else
    assert module(x)[0, 0].isnan().any()
    assert not module(x)[1].isnan().any()


def test_moves_less_than_max_pooling() -> None:
    photographs = torch.from_numpy(np.stack(list(crops(66, 12))))[:, None]

    def change(pool: nn.Module) -> float:
        inner, moved = (pool(photographs[..., k : k + 65]) for k in (0, 1))
        return relative_error(moved.numpy(), inner.numpy())

    assert change(MaxBlurPool2d()) < 0.8 * change(nn.MaxPool2d(3, 2, 1))


# Warnings that torch raises about itself while it compiles and exports.
torch_warnings = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:.*LeafSpec:FutureWarning"
)


@torch_warnings
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_compiles_once_for_every_size(ceil_mode: bool) -> None:
    module = MaxBlurPool2d(ceil_mode=ceil_mode)
    torch.compiler.reset()
    # Code generated for it is run in tests/test_tracing.py.
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for shape in [(2, 3, 17, 20), (5, 3, 32, 32), (3, 3, 6, 41)]:
            x = torch.from_numpy(noise(0, *shape, dtype=np.float32))
            assert torch.allclose(compiled(x), module(x), atol=1e-6)


@torch_warnings
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_exports(tmp_path: Path, ceil_mode: bool) -> None:
    module = MaxBlurPool2d(ceil_mode=ceil_mode).eval()
    batch, height, width = (torch.export.Dim(name, min=3, max=4096) for name in "bhw")
    program = torch.export.export(
        module, (torch.rand(4, 3, 20, 31),), dynamic_shapes={"x": {0: batch, 2: height, 3: width}}
    )
    path = tmp_path / "pool.onnx"
    torch.onnx.export(program, f=path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    for shape in [(4, 3, 20, 31), (7, 3, 3, 16), (3, 3, 33, 8)]:
        x = noise(0, *shape, dtype=np.float32)
        expected = module(torch.from_numpy(x))
        assert torch.allclose(program.module()(torch.from_numpy(x)), expected, atol=1e-6)
        (actual,) = session.run(None, {session.get_inputs()[0].name: x})
        assert np.allclose(actual, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"kernel_size": 0}, ValueError, "kernel_size must be an integer of at least 1 or a pair"),
        ({"kernel_size": (3, 3, 3)}, ValueError, "kernel_size"),
        ({"stride": 1.5}, TypeError, "stride"),
        ({"padding": -1}, ValueError, "padding"),
        ({"padding": 2}, ValueError, "at most half of kernel_size 3, got 2"),
        ({"ceil_mode": 1}, TypeError, "ceil_mode"),
        ({"blur": 8}, ValueError, "blur must be an integer from 1 to 7, got 8"),
        ({"blur": True}, TypeError, "blur"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        MaxBlurPool2d(**arguments)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        MaxBlurPool2d()(torch.rand(5, 5))
    with pytest.raises(TypeError, match="floating-point"):
        MaxBlurPool2d()(torch.ones(1, 3, 5, 5, dtype=torch.uint8))

"""What torch makes of the modules without running them: compiled, exported, translated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

from dtwpt.nn import CMod2d, DTCWPT2d, IDTCWPT2d, RMax2d, WaveletStem

# torch's own remarks on itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex"),
]

SIZES = [(2, 64, 80), (3, 97, 50), (5, 224, 130), (4, 33, 225)]

MODULES: dict[str, Any] = {
    "CMod2d": CMod2d,
    "CMod2d gabor": lambda: CMod2d(3, packets="gabor"),
    "CMod2d periodic": lambda: CMod2d(mode="periodic"),
    "CMod2d reflect": lambda: CMod2d(mode="reflect"),
    "CMod2d replicate": lambda: CMod2d(mode="replicate"),
    "CMod2d zero": lambda: CMod2d(mode="zero"),
    "RMax2d": RMax2d,
    "fixed stem": lambda: WaveletStem(free_channels=0),
    "cmod stem": lambda: WaveletStem(colour="mix"),
    "rmax stem": lambda: WaveletStem(operator="rmax", colour="none"),
    "blur stem": lambda: WaveletStem(blur=4),
    "sector stem": lambda: WaveletStem(groups="sector"),
    "stem of depth 3": lambda: WaveletStem(depth=3, padding=2, pool_padding=0),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def images(size: tuple[int, int, int]) -> torch.Tensor:
    number, height, width = size
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("name", [*MODULES, "DTCWPT2d"])
def test_one_graph_for_every_size(name: str) -> None:
    module = DTCWPT2d() if name == "DTCWPT2d" else MODULES[name]().eval()
    # What the tracer sees is what matters; generating code for it is torch's part, tried below.
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for index, size in enumerate(SIZES):
        with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=index > 0):
            x = images(size)
            assert torch.allclose(compiled(x), module(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("operator", ["cmod", "rmax"])
def test_compiled_training(operator: str) -> None:
    torch.manual_seed(0)
    stem = WaveletStem(3, 8, operator=operator, free_channels=3, colour="mix")
    twin = WaveletStem(3, 8, operator=operator, free_channels=3, colour="mix")
    twin.load_state_dict(stem.state_dict())
    compiled = torch.compile(stem, fullgraph=True)
    x = images((2, 48, 40)).requires_grad_()
    z = x.detach().clone().requires_grad_()
    for module, image in ((compiled, x), (twin, z)):
        module(image).square().mean().backward()
    assert torch.allclose(_grad(x), _grad(z), rtol=0, atol=1e-6)
    for ours, theirs in zip(stem.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(_grad(ours), _grad(theirs), rtol=1e-3, atol=1e-5)
    for one, other in zip(stem.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


def test_compiled_inverse() -> None:
    module = IDTCWPT2d().double()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=True)
    for index, (height, width) in enumerate(((30, 47), (64, 50), (21, 23))):
        x = torch.rand(2, 3, height, width, dtype=torch.float64)
        c = DTCWPT2d().double()(x).requires_grad_()
        with torch._dynamo.config.patch(error_on_recompile=index > 0):
            y = compiled(c, (height, width))
        assert torch.allclose(y, x)
        ours = torch.autograd.grad(y.square().sum(), c)[0]
        theirs = torch.autograd.grad(module(c, (height, width)).square().sum(), c)[0]
        assert torch.allclose(ours, theirs)


def test_compiled_autocast() -> None:
    stem = WaveletStem().eval()
    compiled = torch.compile(stem, backend="aot_eager", fullgraph=True)
    x = images((2, 64, 64))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(compiled(x), stem(x), atol=1e-2)


def dynamic() -> Any:
    dim = torch.export.Dim
    return ({0: dim("n"), 2: dim("h", min=32), 3: dim("w", min=32)},)


@pytest.mark.parametrize("name", MODULES)
def test_export_and_onnx(name: str, tmp_path: Path) -> None:
    module: nn.Module = MODULES[name]().eval()
    program = torch.export.export(module, (images(SIZES[0]),), dynamic_shapes=dynamic())
    translated = torch.onnx.export(program, dynamo=True, verbose=False)
    assert translated is not None
    translated.save(tmp_path / "module.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "module.onnx")
    for size in SIZES:
        x = images(size)
        expected = module(x).detach()
        assert torch.allclose(program.module()(x), expected, rtol=0, atol=1e-5)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        assert torch.allclose(torch.from_numpy(got), expected, rtol=0, atol=1e-4)


def _grad(x: torch.Tensor) -> torch.Tensor:
    assert x.grad is not None
    return x.grad

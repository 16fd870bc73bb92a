"""What torch makes of the modules without running them: compiled, exported, translated."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch import nn

from dtwpt.engine.borders import MODES, source_index
from dtwpt.nn import CMod2d, DTCWPT2d, IDTCWPT2d, MaxBlurPool2d, RMax2d, WaveletStem

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
    "blurred sector stem": lambda: WaveletStem(groups="sector", blur=4),
    "stem of depth 3": lambda: WaveletStem(depth=3, padding=2, pool_padding=0),
}
# Translated by the same lines as the others are, which differ in borders: these are tried apart.
ALIKE = {name for name in MODULES if name.startswith("CMod2d ")} | {"fixed stem"}


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


@pytest.mark.parametrize(
    ("operator", "backend"),
    [
        ("cmod", "aot_eager"),
        ("rmax", "aot_eager"),
        # Half a minute each for C++ of torch's own layers; ours are tried below.
        pytest.param("cmod", "inductor", marks=pytest.mark.slow),
        pytest.param("rmax", "inductor", marks=pytest.mark.slow),
    ],
)
def test_compiled_training(operator: str, backend: str) -> None:
    torch.manual_seed(0)
    stem = WaveletStem(3, 8, operator=operator, free_channels=3, colour="mix")
    twin = WaveletStem(3, 8, operator=operator, free_channels=3, colour="mix")
    twin.load_state_dict(stem.state_dict())
    compiled = torch.compile(stem, backend=backend, fullgraph=True)
    x = images((2, 48, 40)).requires_grad_()
    z = x.detach().clone().requires_grad_()
    for module, image in ((compiled, x), (twin, z)):
        module(image).square().mean().backward()
    assert torch.allclose(_grad(x), _grad(z), rtol=0, atol=1e-6)
    for ours, theirs in zip(stem.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(_grad(ours), _grad(theirs), rtol=1e-3, atol=1e-5)
    for one, other in zip(stem.buffers(), twin.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


class Several(nn.Module):
    """Modules side by side, for one graph."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.several = nn.ModuleList(modules)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(module(x) for module in self.several)


def test_inductor_takes_what_the_operators_say_of_their_results() -> None:
    """Shapes and strides, of results and of derivatives, with sizes left open."""
    modules = CMod2d(), RMax2d(), MaxBlurPool2d()
    compiled = torch.compile(Several(*modules), fullgraph=True, dynamic=True)
    x = images(SIZES[0]).requires_grad_()
    # Graphs that an earlier run left were made from what the operators said then.
    with (
        torch._inductor.config.patch(fx_graph_cache=False),
        torch._functorch.config.patch(enable_autograd_cache=False),
    ):
        results = compiled(x)
    expected = [module(x) for module in modules]
    for ours, theirs in zip(results, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    one, other = (
        torch.autograd.grad([y.square().sum() for y in ys], x)[0] for ys in (results, expected)
    )
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


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


@cache
def exported(name: str) -> tuple[nn.Module, torch.export.ExportedProgram]:
    module: nn.Module = MODULES[name]().eval()
    return module, torch.export.export(module, (images(SIZES[0]),), dynamic_shapes=dynamic())


@pytest.mark.parametrize("name", MODULES)
def test_export(name: str) -> None:
    module, program = exported(name)
    run = program.module()
    for size in SIZES:
        x = images(size)
        assert torch.allclose(run(x), module(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in MODULES],
)
def test_onnx(name: str, tmp_path: Path) -> None:
    module, program = exported(name)
    session = translated(program, tmp_path)
    for size in SIZES:
        x = images(size)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        assert torch.allclose(torch.from_numpy(got), module(x), rtol=0, atol=1e-4)


class Borders(nn.Module):
    """Indices far beyond a signal, in every mode."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n = x.shape[0]
        positions = torch.arange(-150, n + 150)
        return tuple(source_index(positions, n, mode) for mode in MODES)


def test_onnx_of_every_mode(tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("n", min=2)},)
    program = torch.export.export(Borders(), (torch.rand(20),), dynamic_shapes=shapes)
    session = translated(program, tmp_path)
    for n in (2, 3, 20, 77):
        got = session.run(None, {session.get_inputs()[0].name: np.zeros(n, np.float32)})
        for mode, indices in zip(MODES, got, strict=True):
            assert np.array_equal(indices, source_index(np.arange(-150, n + 150), n, mode)), mode


def translated(program: torch.export.ExportedProgram, folder: Path) -> Any:
    translation = torch.onnx.export(program, dynamo=True, verbose=False)
    assert translation is not None
    translation.save(folder / "module.onnx")
    return onnxruntime.InferenceSession(folder / "module.onnx")


def _grad(x: torch.Tensor) -> torch.Tensor:
    assert x.grad is not None
    return x.grad

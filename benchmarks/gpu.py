"""Times of the analysis on a GPU, beside a ResNet's first layers and a copy of memory.

    python benchmarks/gpu.py           # under six minutes; results in benchmarks/results/
    python benchmarks/gpu.py --tune    # times candidate tilings of the kernels, too

dtwpt is taken from the checkout: nothing has to be installed but torch, with Triton and SciPy.
Results are checked against the reference engine on the CPU first. Each section that fails leaves
its error in the results, and the others go on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import dtwpt  # noqa: E402
from dtwpt.engine import gpu, reference  # noqa: E402
from dtwpt.engine.spec import Analysis, Axis, Kind  # noqa: E402

T = gpu.Tiling
BATCH, CHANNELS, SIDE = 256, 3, 224
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
RESULTS: dict[str, Any] = {}
STARTED = time.time()
_RESULT = ROOT / "benchmarks" / "results" / "gpu.json"

# Tilings to time beside those in use, by depth and terms. All give right results on an H100;
# slow ones are left out: 8 warps, 4 rows of cells at depth 2, stages of the adjoint.
ANALYSES: dict[tuple[int, int], list[gpu.Tiling]] = {
    (1, 2): [T(16, 16), T(16, 16, once=True, stages=2), T(16, 16, once=True, piece=64)],
    (1, 1): [T(16, 32, once=True)],
    (1, 0): [T(16, 16, once=True, stages=2), T(16, 16, once=True, piece=64)],
    (2, 2): [
        T(8, 8, once=True, piece=16),
        T(8, 8, once=True, piece=64),
        T(8, 8, once=True, images=8),
        T(8, 8, once=True, images=32),
        T(8, 8, once=True, registers=128),
        T(8, 8),
    ],
    (2, 1): [T(8, 8, once=True), T(8, 16, once=True)],
    (2, 0): [
        T(8, 8, once=True),
        T(8, 16, once=True),
        T(8, 16, once=True, stages=2),
        T(8, 16, once=True, chunk=128, piece=64),
    ],
    (3, 2): [T(4, 4, chunk=32), T(4, 4, chunk=64), T(4, 4, once=True)],
    (3, 1): [T(4, 8, chunk=32), T(4, 4, chunk=64, piece=64)],
    (3, 0): [T(4, 8, once=True, piece=64), T(4, 4, once=True, chunk=128), T(2, 8, once=True)],
    (4, 2): [T(2, 2, chunk=32), T(1, 2, chunk=32)],
    (4, 0): [T(2, 4, chunk=32), T(2, 4, once=True, piece=64)],
}
# The same for the writing of both parts: "complex", and "direction" of the gradient.
PAIRS: dict[tuple[int, int], list[gpu.Tiling]] = {
    (2, 2): [T(8, 8, once=True, piece=16), T(8, 8, once=True, registers=168)],
    (2, 1): [T(8, 8, once=True), T(8, 16, once=True)],
}
ADJOINTS: dict[tuple[int, int], list[gpu.Tiling]] = {
    (2, 2): [T(64, 64, piece=64), T(64, 64, piece=16), T(32, 64)],
    (2, 1): [T(64, 64), T(32, 64, piece=64)],
    (3, 2): [T(32, 32)],
    (4, 2): [T(32, 32)],
}


def say(*words: Any) -> None:
    print(f"[{time.time() - STARTED:5.0f} s]", *words, flush=True)


def section(name: str, run: Callable[[], Any]) -> bool:
    """Keep what a section returns, or its error; tell whether the GPU can still be used."""
    say(name)
    try:
        RESULTS[name] = run()
    except Exception as error:
        RESULTS[name] = {"error": f"{type(error).__name__}: {error}"[:2000]}
        say("FAILED", name, traceback.format_exc(limit=-3)[-1500:])
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception as error:
        RESULTS[name] = {"error": f"{error}"[:2000], "found": RESULTS[name]}
        write()
        return False
    write()
    return True


def write() -> None:
    text = json.dumps(RESULTS, indent=1, default=str)
    _RESULT.parent.mkdir(exist_ok=True)
    _RESULT.write_text(text + "\n")
    if os.environ.get("OUT"):
        Path(os.environ["OUT"], "gpu.json").write_text(text + "\n")


def milliseconds(run: Callable[[], Any], budget: float = 60) -> float:
    """Return the median time of a call, after a warm-up."""
    from triton.testing import do_bench

    run()
    return float(do_bench(run, warmup=15, rep=budget, return_mode="median"))


def make(
    depth: int, shape: tuple[int, int], mode: str = "symmetric", **fields: Any
) -> tuple[Analysis, tuple[Axis, ...]]:
    analysis = Analysis(depth, "qshift_b", fields.pop("stride", 2**depth), mode, 2, **fields)
    kind: Kind = "rmax" if analysis.pool else "complex"
    return analysis, analysis.axes(shape, analysis.size(shape), kind)


def planes(dtype: torch.dtype) -> Tensor:
    return torch.randn(BATCH * CHANNELS, SIDE, SIDE, device="cuda").to(dtype)


# Checks -----------------------------------------------------------------------------------------


def prepare(tuning: bool) -> dict[str, Any]:
    """Compare with the reference, and compile what is timed, in processes side by side.

    Each keeps what it compiled in Triton's cache, and has its own context should it break.
    """
    work: list[tuple[str, Any]] = [("compare", setting) for setting in _settings()]
    work += [("warm", (depth, name)) for depth in (2, 3, 1, 4) for name in ("float32", "bfloat16")]
    work += [("warm", (2, "float16"))]
    if tuning:
        work += [("compile", entry) for entry in candidates()]
    errors: dict[str, Any] = {}
    wrong = 0
    workers = max(1, min(14, (os.cpu_count() or 2) - 1, len(work)))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(do, item) for item in work]
        for item, future in zip(work, futures, strict=True):
            try:
                found = future.result(timeout=400)
            except Exception as error:
                found = {f"{item}": str(error)[:300]}
            for name, value in found.items():
                if item[0] == "compare":
                    errors[name] = value
                    bar = 1e-2 if "float16" in name or "fast" in name else 1e-5
                    if not (isinstance(value, float) and value <= bar):
                        wrong += 1
                        say("WRONG", name, value)
                else:
                    say("not compiled:", name, value)
    largest = max(
        (v for n, v in errors.items() if "float32" in n and "fast" not in n), default=None
    )
    say(f"{len(errors)} comparisons, {wrong} wrong, largest error in float32 {largest}")
    return {"wrong": wrong, "errors": errors}


def do(item: tuple[str, Any]) -> dict[str, Any]:
    """Do a part of the preparation."""
    kind, details = item
    try:
        if kind == "compare":
            return compare(**details)
        if kind == "warm":
            warm(*details)
        else:
            what, depth, terms, tiling = details
            _call(what, terms, tiling, _tensors(what, depth, terms, 1)).run()
        torch.cuda.synchronize()
    except Exception as error:
        return {f"{item}": f"{type(error).__name__}: {error}"[:300]}
    return {}


def warm(depth: int, name: str) -> None:
    analysis, axes = make(depth, (SIDE, SIDE))
    x = torch.randn(1, SIDE, SIDE, device="cuda").to(DTYPES[name])
    g = gpu.analyse(x, analysis, axes, "modulus")
    gpu.analyse(x, analysis, axes, "complex")
    gpu.modulus_backward(x, g, analysis, axes)
    gpu.adjoint(g, analysis, axes, "real", x.dtype)
    if name == "float32":
        gpu.analyse(x, analysis, axes, "modulus", fast=True)


def _settings() -> list[dict[str, Any]]:
    side = (SIDE, SIDE)
    two: tuple[Kind, ...] = ("parts", "modulus")
    found: list[dict[str, Any]] = [
        {"depth": 2, "shape": side},
        {"depth": 3, "shape": side, "kinds": two},
        {"depth": 1, "shape": (75, 132), "kinds": two},
        {"depth": 4, "shape": (130, 244), "kinds": two},
        {"depth": 2, "shape": side, "mode": "periodic", "kinds": two},
        {"depth": 2, "shape": (61, 75), "kinds": ("complex",)},
        {"depth": 3, "shape": side, "packets": (3, 100, 1), "kinds": two},
        {"depth": 2, "shape": side, "packets": (5, 0, 31), "kinds": two},
        {"depth": 2, "shape": side, "kinds": ("modulus",), "fast": True},
    ]
    modes = ("reflect", "replicate", "zero")
    found += [{"depth": 2, "shape": side, "mode": mode, "kinds": two} for mode in modes]
    small = ((1, 1), (5, 3), (61, 75))
    found += [{"depth": 2, "shape": shape, "kinds": two} for shape in small]
    for dtype in ("bfloat16", "float16"):
        found += [{"depth": depth, "shape": side, "kinds": two, "dtype": dtype} for depth in (2, 3)]
    pooled: dict[str, Any] = {"shape": (75, 84), "kinds": ("real",), "pool": 3}
    found += [{"depth": d, "stride": 2 ** (d - 1), **pooled} for d in (1, 2, 3, 4)]
    return found


def compare(**setting: Any) -> dict[str, float]:
    """Return errors, relative to the largest value, against the reference in float64."""
    from unittest import mock

    empty = torch.empty

    def poisoned(*args: Any, **kwargs: Any) -> Any:
        return empty(*args, **kwargs).fill_(float("nan"))

    errors = {}
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with mock.patch.object(torch, "empty", poisoned):
        for name, got, wanted in _compare(**setting):
            wide = torch.complex128 if got.is_complex() else torch.float64
            difference = np.abs(got.cpu().to(wide).numpy() - wanted).max()
            errors[name] = float(difference / np.abs(wanted).max())
    return errors


def _compare(
    depth: int,
    shape: tuple[int, int],
    mode: str = "symmetric",
    kinds: tuple[Kind, ...] = ("complex", "parts", "real", "modulus"),
    dtype: str = "float32",
    fast: bool = False,
    **fields: Any,
) -> Iterator[tuple[str, Tensor, Any]]:
    narrow = DTYPES[dtype]
    analysis, axes = make(depth, shape, mode, **fields)
    x = torch.randn(3, *shape).to(narrow)
    wide, card = x.double().numpy(), x.cuda()
    name = f"{depth} {shape} {mode} {dtype} {fields or ''} {'fast' if fast else ''}"
    for kind in kinds:
        y = reference.analyse(wide, analysis, axes, kind)
        yield f"{kind} {name}", gpu.analyse(card, analysis, axes, kind, fast=fast), y
        if kind == "modulus":
            c = reference.analyse(wide, analysis, axes, "complex")
            g = torch.randn(c.shape).to(narrow)
            # Directions of tiny coefficients are those of rounding.
            g[torch.from_numpy(y < 1e-2 * y.max())] = 0
            product = g.double().numpy() * c / np.maximum(y, 1e-300)
            back = gpu.modulus_backward(card, g.cuda(), analysis, axes, fast=fast)
            yield f"gradient {name}", back, reference.adjoint(product, analysis, axes, "complex")
            continue
        pairs = torch.randn(*y.shape, 2)
        c = torch.view_as_complex(pairs) if kind == "complex" else pairs[..., 0].to(narrow)
        back, again = (gpu.adjoint(c.cuda(), analysis, axes, kind, narrow) for _ in range(2))
        assert torch.equal(back, again), "the bits of the adjoint change"
        values = c.to(torch.complex128 if c.is_complex() else torch.float64).numpy()
        yield f"adjoint {kind} {name}", back, reference.adjoint(values, analysis, axes, kind)


def safety() -> dict[str, Any]:
    """Check extreme values, other streams and CUDA graphs."""
    analysis, axes = make(2, (224, 224))
    x = torch.randn(4, 224, 224, device="cuda").clamp(-2, 2)
    y = gpu.analyse(x, analysis, axes, "modulus")
    found: dict[str, Any] = {}
    for value in (1e37, 1e20, 1e-20, 1e-36):
        scaled = gpu.analyse(x * value, analysis, axes, "modulus").double() / value
        found[f"values {value}"] = float((scaled - y).abs().max() / y.abs().max())
    blank = torch.zeros_like(x)
    zero = gpu.analyse(blank, analysis, axes, "modulus")
    back = gpu.modulus_backward(blank, torch.ones_like(zero), analysis, axes)
    found["blank"] = float(zero.abs().max() + back.abs().max())
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        other = gpu.analyse(x, analysis, axes, "modulus")
    stream.synchronize()
    found["stream"] = torch.equal(other, y)
    g = torch.randn_like(y)
    expected = gpu.modulus_backward(x, g, analysis, axes)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = gpu.analyse(x, analysis, axes, "modulus")
        gradient = gpu.modulus_backward(x, g, analysis, axes)
    graph.replay()
    torch.cuda.synchronize()
    found["graph"] = torch.equal(captured, y) and torch.equal(gradient, expected)
    say(found)
    return found


# Times ------------------------------------------------------------------------------------------


def copying() -> dict[str, float]:
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    took = milliseconds(lambda: target.copy_(source), 100)
    rate = 2 * source.numel() * 4 / took / 1e6
    say(f"copy {rate:.0f} GB/s")
    return {"GB/s": rate}


def row(table: dict[str, Any], name: str, moved: float, run: Callable[[], Any]) -> None:
    """Time a call that must move so many bytes, and its ratio to what a copy would take."""
    try:
        took = milliseconds(run)
    except Exception as error:
        table[name] = {"error": f"{type(error).__name__}: {error}"[:600]}
        say(f"{name:58s} {str(error)[:100]!r}")
        torch.cuda.empty_cache()
        return
    rate = RESULTS.get("copy", {}).get("GB/s")
    table[name] = {"ms": took}
    text = f"{name:58s} {took:8.3f} ms"
    if rate and moved:
        floor = moved / rate / 1e6
        table[name] |= {"floor ms": floor, "ratio": took / floor}
        text += f"  {took / floor:5.2f} times the floor of {floor:.3f}"
    say(text)


def kernels() -> dict[str, Any]:
    table: dict[str, Any] = {}
    for depth in (2, 3, 1, 4):
        analysis, axes = make(depth, (SIDE, SIDE))
        for name in ("float32", "bfloat16", "float16") if depth == 2 else ("float32", "bfloat16"):
            x = torch.randn(BATCH * CHANNELS, SIDE, SIDE, device="cuda").to(DTYPES[name])
            pixels = x.numel() * x.element_size()
            y = gpu.analyse(x, analysis, axes, "modulus")
            maps = y.numel() * y.element_size()
            of = f"depth {depth} {name}"
            run = partial(gpu.analyse, x, analysis, axes, "modulus")
            row(table, f"modulus {of}", pixels + maps, run)
            if name == "float32":
                row(table, f"modulus fast {of}", pixels + maps, partial(run, fast=True))
            run = partial(gpu.analyse, x, analysis, axes, "complex")
            row(table, f"complex {of}", pixels + 8 * y.numel(), run)
            g = torch.randn_like(y)
            # Pixels and gradients are read, parts are written and read, pixels are written.
            run = partial(gpu.modulus_backward, x, g, analysis, axes)
            row(table, f"modulus backward {of}", 2 * pixels + 5 * maps, run)
            # The part of it that computes directions again: pixels, gradients, parts.
            parts = torch.empty(len(x), 2, *g.shape[1:], dtype=x.dtype, device="cuda")
            maxima = torch.zeros(len(x), dtype=torch.int32, device="cuda")
            terms = 2 if name == "float32" else 1
            tiling = gpu.analysis_tiling(depth, terms, "direction")
            kept = (x, parts, g, maxima, analysis, axes, "direction", terms, tiling)
            row(table, f"directions {of}", pixels + 3 * maps, partial(_launch, *kept))
            run = partial(gpu.adjoint, g, analysis, axes, "real", x.dtype)
            row(table, f"adjoint of the real part {of}", pixels + 2 * maps, run)
            del x, y, g, run, parts, kept
            torch.cuda.empty_cache()
    return table


def _launch(*of: Any) -> None:
    gpu.analysis_call(*of).run()


class Stem(nn.Sequential):
    """The first layers of a ResNet."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )


def functions() -> dict[str, Any]:
    """Time cmod2 and its module, forward, and with the gradient of the images."""
    table: dict[str, Any] = {}
    for name in ("float32", "bfloat16"):
        for depth in (2, 3):
            x = torch.randn(BATCH, CHANNELS, SIDE, SIDE, device="cuda").to(DTYPES[name])
            leaf = x.clone().requires_grad_()
            moved = 3 * x.numel() * x.element_size()
            calls: dict[str, Callable[[Tensor], Tensor]] = {}
            cmod2: Any = dtwpt.cmod2
            calls["cmod2"] = partial(cmod2, depth=depth)
            try:
                from dtwpt.nn import CMod2d

                calls["CMod2d"] = CMod2d(depth=depth).cuda()
            except Exception as error:
                table["CMod2d"] = {"error": str(error)}
            for label, call in calls.items():
                of = f"{label} depth {depth} {name}"
                row(table, f"{of} forward", moved, partial(call, x))
                row(table, f"{of} forward+backward", 0, partial(_both, call, leaf))
                leaf.grad = None
                torch.cuda.empty_cache()
    return table


def _both(call: Callable[[Tensor], Tensor], leaf: Tensor) -> None:
    leaf.grad = None
    y = call(leaf)
    torch.autograd.backward(y, torch.ones_like(y))


def stems() -> dict[str, Any]:
    """Time the stem of a ResNet and the wavelet stems: forward, and steps of training."""
    table: dict[str, Any] = {}
    contestants: dict[str, Callable[[], nn.Module]] = {"ResNet": Stem}
    try:
        from dtwpt.nn import WaveletStem

        for free in (0, 40):
            contestants[f"wavelet, {free} free"] = partial(WaveletStem, free_channels=free)
    except Exception as error:
        table["WaveletStem"] = {"error": str(error)}
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE, device="cuda")
    for precision in ("float32", "tf32", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        for label, build in contestants.items():
            for layout in ("", " channels_last") if label == "ResNet" else ("",):
                of = f"{label}{layout} {precision}"
                try:
                    stem = build().cuda()
                except Exception as error:
                    table[of] = {"error": str(error)[:600]}
                    continue
                images = x
                if layout:
                    stem = stem.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                    images = x.contiguous(memory_format=torch.channels_last)
                _time_stem(table, of, stem, images, precision == "bfloat16")
                del stem, images
                torch.cuda.empty_cache()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return table


def _time_stem(table: dict[str, Any], of: str, stem: nn.Module, x: Tensor, half: bool) -> None:
    optimizer = torch.optim.SGD([*stem.parameters(), nn.Parameter(x.new_zeros(1))], 1e-3)

    def forward() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            y: Tensor = stem(x)
        return y

    def evaluate() -> None:
        with torch.no_grad():
            forward()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        y = forward()
        if y.requires_grad:
            torch.autograd.backward(y, torch.ones_like(y))
        optimizer.step()

    stem.eval()
    row(table, f"{of} forward", 0, evaluate)
    stem.train()
    row(table, f"{of} training step", 0, step)


# Tuning -----------------------------------------------------------------------------------------


def _tensors(what: str, depth: int, terms: int, count: int) -> tuple[Any, ...]:
    dtype = torch.float32 if terms == 2 else torch.bfloat16
    analysis, axes = make(depth, (SIDE, SIDE))
    x = torch.randn(count, SIDE, SIDE, device="cuda").to(dtype)
    shape = (analysis.channels, *(axis.count for axis in axes))
    maxima = torch.full((count,), 5.0, device="cuda").view(torch.int32)
    g = torch.randn(count, *shape, device="cuda").to(dtype) if what == "direction" else None
    if what == "modulus":
        c = torch.empty(count, *shape, dtype=dtype, device="cuda")
    elif what == "complex":
        c = torch.empty(count, *shape, 2, device="cuda")
    else:
        c = torch.randn(count, 2, *shape, device="cuda").to(dtype)
    return analysis, axes, x, c, maxima, g


def _call(what: str, terms: int, tiling: gpu.Tiling, tensors: tuple[Any, ...]) -> gpu.Call:
    analysis, axes, x, c, maxima, g = tensors
    if what == "adjoint":
        return gpu.adjoint_call(c, x, maxima, analysis, axes, "parts", terms, tiling)
    kept = maxima if what == "direction" else None
    return gpu.analysis_call(x, c, g, kept, analysis, axes, what, terms, tiling)


def candidates() -> list[tuple[str, int, int, gpu.Tiling]]:
    """Return (kernel, depth, terms, tiling), the one in use before the others."""
    found = []
    for what, others in (
        ("modulus", ANALYSES),
        ("complex", PAIRS),
        ("direction", PAIRS),
        ("adjoint", ADJOINTS),
    ):
        for of, some in others.items():
            used = gpu.ADJOINT[of] if what == "adjoint" else gpu.analysis_tiling(*of, what)
            found += [(what, *of, tiling) for tiling in (used, *some)]
    return found


def tune() -> dict[str, Any]:
    table: dict[str, Any] = {}
    work = candidates()
    for what, depth, terms in dict.fromkeys(entry[:3] for entry in work):
        tensors = _tensors(what, depth, terms, BATCH * CHANNELS)
        moved = sum(t.numel() * t.element_size() for t in tensors[2:] if t is not None)
        group = f"{what} depth {depth} terms {terms}"
        for tiling in [entry[3] for entry in work if entry[:3] == (what, depth, terms)]:
            run = partial(_run, what, terms, tiling, tensors)
            row(table, f"{group} {_short(tiling)}", moved, run)
        times = [(cell["ms"], name) for name, cell in table.items() if "ms" in cell]
        say("BEST", *min((pair for pair in times if pair[1].startswith(group)), default=("none",)))
        del tensors, run
        torch.cuda.empty_cache()
    return table


def _run(what: str, terms: int, tiling: gpu.Tiling, tensors: tuple[Any, ...]) -> None:
    _call(what, terms, tiling, tensors).run()


def _short(tiling: gpu.Tiling) -> str:
    text = f"{tiling.rows}x{tiling.columns} w{tiling.warps} s{tiling.stages} i{tiling.images}"
    text += f" p{tiling.piece} c{tiling.chunk}" + " once" * tiling.once
    return text + (f" r{tiling.registers}" if tiling.registers else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tune", action="store_true", help="time candidate tilings, too")
    parser.add_argument("--only", help="sections, separated by commas")
    parser.add_argument("--resume", action="store_true", help="add to the results that are there")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a GPU that torch can use; torch.cuda finds none")
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    import triton

    RESULTS["machine"] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "images": [BATCH, CHANNELS, SIDE, SIDE],
    }
    say(RESULTS["machine"], dtwpt.__file__)
    sections: dict[str, Callable[[], Any]] = {
        "copy": copying,
        "equality": partial(prepare, options.tune),
        "kernels": kernels,
        "safety": safety,
        "stems": stems,
        "functions": functions,
    }
    if options.tune:
        sections["tuning"] = tune
    only = options.only.split(",") if options.only else list(sections)
    if options.resume:
        RESULTS.update(json.loads(_RESULT.read_text()))
    for number, name in enumerate(only):
        if section(name, sections[name]):
            continue
        rest = ["--resume", "--only", ",".join(only[number + 1 :])]
        if only[number + 1 :]:  # on a context that is not broken
            say("starting again")
            arguments = [str(Path(__file__).resolve()), *rest, *["--tune"] * options.tune]
            os.execv(sys.executable, [sys.executable, *arguments])
    say("results in", _RESULT)


if __name__ == "__main__":
    main()

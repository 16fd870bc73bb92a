"""Offline compilation of the GPU kernels, which needs no GPU: registers, spills, instructions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.compiler import compile as compile_kernel

from dtwpt.engine import gpu
from dtwpt.engine.spec import Analysis

_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int32: "*i32",
}


def call(
    what: str,
    depth: int,
    kind: str,
    terms: int,
    dtype: torch.dtype = torch.float32,
    tiling: gpu.Tiling | None = None,
    n: int = 224,
) -> gpu.Call:
    """Return the launch for images of side n, as the library makes it."""
    analysis = Analysis(depth, "qshift_b", 2**depth, "symmetric")
    axes = analysis.axes((n, n), analysis.size((n, n)), "complex")
    wide = torch.float32 if kind in ("complex", "parts") and what == "analysis" else dtype
    pairs = (2,) if kind == "complex" else ()
    both = (2,) if kind in ("parts", "direction") else ()
    c = torch.empty(1, *both, analysis.channels, *(a.count for a in axes), *pairs, dtype=wide)
    x = torch.empty(1, n, n, dtype=dtype)
    if what == "analysis":
        tiling = tiling or gpu.analysis_tiling(depth, terms, kind)
        return gpu.analysis_call(x, c, None, None, analysis, axes, kind, terms, tiling)
    tiling = tiling or gpu.ADJOINT[depth, terms]
    maxima = torch.zeros(1, dtype=torch.int32)
    return gpu.adjoint_call(c, x, maxima, analysis, axes, kind, terms, tiling)


def report(launch: gpu.Call, capability: int) -> dict[str, Any]:
    """Compile a launch for a capability (80, 90), and read what the assembler says."""
    names = list(launch.kernel.arg_names)
    signature = {
        name: _TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        for name, value in launch.arguments.items()
    }
    source = ASTSource(
        launch.kernel,
        signature={**signature, **dict.fromkeys(launch.constants, "constexpr")},
        constexprs={(names.index(name),): value for name, value in launch.constants.items()},
        attrs={
            (names.index(name),): [["tt.divisibility", 16]]
            for name, kind in signature.items()
            if kind[0] == "*"
        },
    )
    kernel = compile_kernel(
        source, target=GPUTarget("cuda", capability, 32), options=launch.options
    )
    ptx = kernel.asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        target = "sm_90a" if capability == 90 else f"sm_{capability}"
        # Triton brings several assemblers, and takes the one that knows what it writes.
        assembler = get_ptxas(capability).path
        command = [assembler, "-v", f"-arch={target}", file.name, "-o", "/dev/null"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr

    def number(pattern: str) -> int:
        found = re.search(pattern, told)
        return int(found.group(1)) if found else 0

    return {
        "registers": number(r"Used (\d+) registers"),
        "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        "shared": kernel.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "mma": ptx.count("mma.sync.aligned"),
        "wide loads": len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)),
        "wide stores": len(re.findall(r"st\.global\S*\.v4\.b32", ptx)),
    }


def main() -> None:
    table = {
        "analysis float32": (call("analysis", 2, "modulus", 2), 90),
        "analysis float32 sm_80": (call("analysis", 2, "modulus", 2), 80),
        "analysis tf32": (call("analysis", 2, "modulus", 1), 90),
        "adjoint float32": (call("adjoint", 2, "parts", 2), 90),
    }
    json.dump({name: report(*of) for name, of in table.items()}, sys.stdout)


if __name__ == "__main__":
    main()

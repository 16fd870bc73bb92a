"""The GPU kernels, in Triton's interpreter and through its compiler: no GPU is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed (pip install triton)")

_TOLERANCES = {"half": 1e-2, "refused": 0.0, "blank": 0.0, "layout": 0.0, "infinite": 0.0}


@lru_cache(maxsize=1)
def _errors() -> dict[str, float]:
    errors: dict[str, float] = _run("gpu_cases", {"TRITON_INTERPRET": "1"})
    return errors


def _run(script: str, environment: dict[str, str]) -> Any:
    command = [sys.executable, "-W", "ignore", "-m", f"tests.{script}"]
    root = Path(__file__).parents[1]
    result = subprocess.run(
        command,
        env={**os.environ, **environment},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _names() -> list[str]:
    """Return the names of groups of cases: their first words."""
    groups = "blank layout infinite refused modulus adjoint gradient complex parts some pooled"
    return [*groups.split(), "half", "values"]


@pytest.mark.parametrize("group", _names())
def test_kernels_agree_with_the_reference_in_float64(group: str) -> None:
    errors = {name: error for name, error in _errors().items() if name.split()[0] == group}
    assert errors
    assert {n: e for n, e in errors.items() if not e <= _TOLERANCES.get(group, 2e-6)} == {}


def test_every_case_is_looked_at() -> None:
    assert {name.split()[0] for name in _errors()} == set(_names())


def test_compiled_kernels_keep_to_registers_and_move_16_bytes(tmp_path: Path) -> None:
    report = _run("gpu_compile", {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"})
    for name, kernel in report.items():
        assert kernel["spills"] == 0, (name, report)
        assert kernel["wide loads"] > 0, (name, report)
        assert kernel["wide stores"] > 0, (name, report)
        # On the smallest GPUs a program can have this much.
        assert kernel["shared"] <= 101376, (name, report)
        # Three programs fit the registers of a processor.
        assert kernel["registers"] <= (255 if "sm_80" in name else 168), (name, report)
        assert kernel["mma" if "sm_80" in name else "wgmma"] > 0, (name, report)

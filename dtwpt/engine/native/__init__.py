"""Placeholder until the kernels are there."""


def unavailable() -> str:
    return "not built"


def supports(analysis: object) -> bool:
    return False

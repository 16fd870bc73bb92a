"""Engines of the analysis: one specification, several implementations.

``spec`` says where coefficients sit, ``reference`` is the shortest correct implementation, ``native``
holds kernels for CPUs and ``gpu`` for GPUs. ``cpu`` and ``torch_ops`` choose among them, for NumPy
arrays and for tensors, and ``dispatch`` is what the rest of the library calls.
"""

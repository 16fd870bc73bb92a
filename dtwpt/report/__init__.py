"""Reports on shift invariance: the analysis, its pictures, and the folder that holds them.

The command ``dtwpt invariance`` is a thin layer over this package.
"""

from dtwpt.report.analysis import Analysis, Crops, analyse_layer, analyse_packets, read_crops
from dtwpt.report.folder import check_folder, write_report
from dtwpt.report.kernels import KernelError, load_kernels, load_layer

__all__ = [
    "Analysis",
    "Crops",
    "KernelError",
    "analyse_layer",
    "analyse_packets",
    "check_folder",
    "load_kernels",
    "load_layer",
    "read_crops",
    "write_report",
]

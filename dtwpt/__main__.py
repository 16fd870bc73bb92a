"""``python -m dtwpt``."""

from dtwpt.cli import main

main()

"""``python -m dtwpt.cli``."""

from dtwpt.cli import main

main()

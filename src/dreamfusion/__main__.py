"""``python -m dreamfusion``."""

from .cli import run

run()

"""How good runs are: R-Precision, Janus rate, geometry; and comparisons of two sets of runs.

>>> from dreamfusion.evaluation import compare, evaluate
>>> evaluate(["runs/suite"])["summary"]["r10"]  # doctest: +SKIP
"""

from __future__ import annotations

from .comparison import compare
from .judging import evaluate, evaluate_full, read

__all__ = ["compare", "evaluate", "evaluate_full", "read"]

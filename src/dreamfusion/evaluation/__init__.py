"""How good runs are: R-Precision, Janus rate, geometry; and comparisons of two sets of runs."""

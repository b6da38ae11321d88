"""Where we look from and how it is lit: one type, ``view.view.View``."""

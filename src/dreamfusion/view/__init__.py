"""Where we look from and how the object is lit: one type, ``view.view.View``."""

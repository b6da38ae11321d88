"""Compiled code, and what feeds it. Each kernel has a plain twin in ``scene`` that says the mathematics."""

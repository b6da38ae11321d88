"""Compiled CPU kernels. Each has a plain PyTorch version that states the mathematics."""

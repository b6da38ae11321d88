"""Compiled CPU kernels. Each stands beside a plain PyTorch version that says the mathematics."""

"""Jacobi Forcing: make an ordinary causal language model decode several tokens per forward pass."""

__version__ = "0.1.0"

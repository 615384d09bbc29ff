"""Runs programs that a model wrote, where they can harm nothing and nobody. May import: errors."""

from jacobi_forcing.sandbox.sandbox import PROTECTIONS, Limits, Outcome, Sandbox

__all__ = ["PROTECTIONS", "Limits", "Outcome", "Sandbox"]

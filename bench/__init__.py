"""Measured claims: every figure that the documentation gives comes from a script here."""

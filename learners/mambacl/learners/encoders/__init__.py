"""Encoders: one example to one vector."""

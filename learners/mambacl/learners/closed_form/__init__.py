"""Learners whose state is a sum over the stream, or the stream itself, and whose answers are formulas."""

"""Learners that take gradient steps along the stream."""

"""Meta-training: the loop, its parts, and Ray Train around it."""

"""Mixers: the part of a block that carries a state along the stream. One file each, its config beside it."""

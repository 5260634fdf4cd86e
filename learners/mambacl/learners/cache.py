"""A growing cache along the stream: a buffer that doubles when full, so that appending one entry costs no copy.

A cache is {"buffer": (B, H, capacity, P), "filled": (), "length": ()}. States made from one another share the buffer
and `filled`, the number of its entries in use; each has a `length` of its own. Only the state that ends where the
buffer ends may append in place; an older one that is continued again takes a copy.
"""

import torch
from torch import Tensor

from mambacl.learners.learner import State


def cached(entries: Tensor) -> State:
    """A cache that holds entries (B, H, R, P)."""
    length = torch.tensor(entries.shape[2])
    return {"buffer": entries, "filled": length.clone(), "length": length}


def entries(cache: State) -> Tensor:
    """What a cache holds, (B, H, R, P)."""
    return cache["buffer"][:, :, : int(cache["length"])]


def last(cache: State, count: int) -> State:
    """A cache of its last entries, at most so many."""
    return cached(entries(cache)[:, :, -count:])


def append(cache: State, new: Tensor) -> tuple[State, Tensor]:
    """The cache with new entries (B, H, L, P) behind its own, and all that it then holds as one tensor."""
    length = int(cache["length"])
    if length == 0:
        return cached(new), new
    total = length + new.shape[2]
    if torch.is_grad_enabled() and (new.requires_grad or cache["buffer"].requires_grad):
        joined = torch.cat([cache["buffer"][:, :, :length], new], dim=2)  # autograd forbids writing in place
        return cached(joined), joined
    buffer, filled = cache["buffer"], cache["filled"]
    if total > buffer.shape[2] or int(filled) != length:
        shape = list(buffer.shape)
        shape[2] = max(2 * length, total)
        grown = buffer.new_empty(shape)
        grown[:, :, :length] = buffer[:, :, :length]
        buffer, filled = grown, filled.clone()
    buffer[:, :, length:total] = new
    filled.fill_(total)
    return {"buffer": buffer, "filled": filled, "length": torch.tensor(total)}, buffer[:, :, :total]

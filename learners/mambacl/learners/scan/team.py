"""Runs one function on several threads at once.

On Linux these are the OpenMP threads that torch has at hand. Threads of our own would have to compete with them: after
each operation of torch they spin for milliseconds in the hope of more, and a scan took 1.3 times as long on two cores.
Elsewhere, and in a forked child, whose OpenMP would wait for threads that did not survive the fork, they are Python's.

numba's `parallel=True` would run on OpenMP, too, but compiles every kernel three times more (30 s instead of 10), and its
threading layers have rules of their own: workqueue dies of two callers at once, OpenMP kills a forked child.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch  # loads the OpenMP that is meant here, too

SHARES = 4  # shares of a call for each thread: a thread held up by other work takes fewer of them

_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _openmp() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libgomp.so.1")
    except OSError:
        return None
    library.GOMP_parallel.argtypes = [_FUNCTION, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    library.GOMP_parallel.restype = None
    return library


_library = _openmp()

_stay = threading.local()
"""Of each thread that has entered Python once more than it leaves. It is known there until it ends: to get to know it and to forget
it at every call takes twenty microseconds and a page of memory, which all processors must hear of."""


def _forget_openmp() -> None:
    global _library
    _library = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_openmp)


def run(work: Callable[[], None], threads: int) -> None:
    """Call `work` on the calling thread and, at the same time, on up to threads - 1 others; return when all are done.

    The calls must share out the work among themselves, since fewer threads may come. They run at the same time only
    where they release the GIL. An error of any of them is raised here.
    """
    if threads == 1:
        work()
    elif _library is None:
        with ThreadPoolExecutor(threads - 1) as pool:
            others = [pool.submit(work) for _ in range(threads - 1)]
            work()
        for other in others:
            other.result()
    else:
        errors: list[BaseException] = []

        def member(_: object) -> None:
            if not hasattr(_stay, "state"):
                _stay.state = ctypes.pythonapi.PyGILState_Ensure()
            try:
                work()
            except BaseException as error:  # an error cannot pass through OpenMP
                errors.append(error)

        _library.GOMP_parallel(_FUNCTION(member), None, threads, 0)
        if errors:
            raise errors[0]


def share_out(worker: Callable[[], Callable[[int, int], None]], items: int, large: bool) -> None:
    """Do all items of a call, on as many threads as torch has if it is large.

    worker: called once on each thread, for what does there the items from one number to another. They follow each other, so that
    what lies side by side in memory is fetched ahead. Which thread takes which makes no difference to a result if no two items
    write to the same place.
    """
    threads = max(1, min(torch.get_num_threads(), items)) if large else 1
    shares = min(SHARES * threads, items) if threads > 1 else 1
    todo = iter(range(shares))

    def work() -> None:
        do = worker()
        for share in todo:
            do(items * share // shares, items * (share + 1) // shares)

    run(work, threads)

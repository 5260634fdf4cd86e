"""Notice to leave: clouds, Kubernetes and batch systems send SIGTERM some seconds before they take a machine away."""

import ctypes
import signal
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Self


class Notice:
    """Hears a SIGTERM while it is open, in any thread; a second one does what it did before."""

    def __init__(self) -> None:
        self.heard = False

    def __enter__(self) -> Self:
        _in_main_thread(self._listen)
        return self

    def __exit__(self, *_: Any) -> None:
        _in_main_thread(self._close)

    def _listen(self) -> None:
        self.before = signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, *_: Any) -> None:
        self.heard = True
        self._close()

    def _close(self) -> None:
        if signal.getsignal(signal.SIGTERM) == self._hear:
            signal.signal(signal.SIGTERM, self.before)


_calls: deque[Callable[[], None]] = deque()


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
def _call_next(_: None) -> int:
    _calls.popleft()()
    return 0


def _in_main_thread(call: Callable[[], None]) -> None:
    """Python sets signal handlers in the main thread alone, and Ray calls functions in others: there it is called as soon
    as the main thread executes Python, which Ray's does several times a second."""
    if threading.current_thread() is threading.main_thread():
        call()
        return
    _calls.append(call)
    if ctypes.pythonapi.Py_AddPendingCall(_call_next, None):
        raise RuntimeError("the main thread does not answer")

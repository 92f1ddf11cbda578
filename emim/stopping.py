"""Stopping a running command from outside: by SIGINT, SIGTERM, or the end of standard input.

A request raises KeyboardInterrupt in the main thread, wherever it is, even amid a slow import.
Training defers it, so that a checkpoint is written first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CANCELLED = 3
GRACE = 2.0  # seconds until a process that does not stop, being deep in foreign code, is ended
SAVING = 10.0  # the same after training, which still writes its report

_deferring = threading.Event()
_requested = threading.Event()
_finished = threading.Event()


def stop_at_end_of_input() -> None:
    """From now on, stop this process when standard input ends, as it does when the parent dies.

    It stops as by Ctrl-C; if it does not within :data:`GRACE` seconds, and does not train, it is ended:
    whatever it writes is complete or absent. Call it in the main thread.
    """
    # A parent started in the background of a shell script passes on that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _finished.clear()
    threading.Thread(target=_watch_input, name="watch stdin", daemon=True).start()


def finished() -> None:
    """The command has ended by itself: the end of standard input no longer matters."""
    _finished.set()


def requested() -> bool:
    """Whether a stop was asked for within :func:`deferred`."""
    return _requested.is_set()


@contextmanager
def deferred() -> Iterator[None]:
    """Within, SIGINT and SIGTERM only make :func:`requested` true; a second one acts as usual."""
    if threading.current_thread() is not threading.main_thread():  # signals are not ours to handle
        yield
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number, frame):
        _requested.set()
        signal.signal(number, before[number])

    _deferring.set()
    for s in before:
        signal.signal(s, ask)
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
        _deferring.clear()
        _requested.clear()


def _wait_for_end_of_input() -> None:
    with contextlib.suppress(OSError):  # closed from the start
        if os.name == "nt":
            _wait_for_end_of_pipe()
        while os.read(0, 4096):
            pass


def _wait_for_end_of_pipe() -> None:
    """On Windows, look into the pipe now and then instead of waiting in a read.

    While a read is pending there, ``import numpy`` waits for it forever (numpy issue 24290).
    """
    import ctypes
    import msvcrt

    handle = ctypes.c_void_p(msvcrt.get_osfhandle(0))
    waiting = ctypes.c_ulong()
    while ctypes.windll.kernel32.PeekNamedPipe(handle, None, 0, None, ctypes.byref(waiting), None):
        if waiting.value:
            os.read(0, waiting.value)
        time.sleep(0.2)


def _watch_input() -> None:
    _wait_for_end_of_input()
    if _finished.is_set():
        return
    if hasattr(signal, "pthread_kill"):  # also wakes the main thread from a system call
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
    left = GRACE
    while left > 0:
        time.sleep(0.1)
        left = SAVING if _deferring.is_set() else left - 0.1
    os._exit(EXIT_CANCELLED)

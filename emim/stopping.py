"""Stopping a running command from outside: by SIGINT, SIGTERM, the end of standard input or of a process.

A request raises KeyboardInterrupt in the main thread, wherever it is, even amid a slow import.
Training defers it, so that a checkpoint is written first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emim.machine.distributed import launched_size

EXIT_CANCELLED = 3
GRACE = 2.0  # seconds until a process that does not stop, being deep in foreign code, is ended
SAVING = 10.0  # the same after training, which still writes its report

_deferring = threading.Event()
_requested = threading.Event()
_finished = threading.Event()
_stopping = threading.Lock()  # taken by the first that has a reason to stop, and kept


def stop_at_end_of_input() -> None:
    """From now on, stop this process when standard input ends, as it does when the parent dies.

    It stops as by Ctrl-C; if it does not within :data:`GRACE` seconds, and does not train, it is ended:
    whatever it writes is complete or absent. Call it in the main thread. Something must come first, such
    as an empty line: an input that is at its end from the start may have been closed by a launcher.
    """
    _watch("stdin", _wait_for_end_of_input)


def stop_with_process(pid: int) -> None:
    """As :func:`stop_at_end_of_input`, when the process ``pid`` ends."""
    _watch(f"process {pid}", lambda: _wait_for_end_of_process(pid))


def finished() -> None:
    """The command has ended by itself: nothing is to be stopped any more."""
    _finished.set()


def requested() -> bool:
    """Whether a stop was asked for within :func:`deferred`."""
    return _requested.is_set()


@contextmanager
def deferred() -> Iterator[None]:
    """Within, SIGINT and SIGTERM only make :func:`requested` true; a second one acts as usual.

    Not so under torchrun, which passes on signals that a terminal or a cluster sends to each process anyway:
    there further ones are ignored, and torchrun ends what takes longer than 30 s.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are not ours to handle
        yield
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number, frame):
        _requested.set()
        signal.signal(number, before[number] if launched_size() == 1 else signal.SIG_IGN)

    _deferring.set()
    for s in before:
        signal.signal(s, ask)
    try:
        yield
    except BaseException:
        if launched_size() > 1:  # torchrun, ending the job, must not cut short what is said of the reason
            for s in before:
                signal.signal(s, signal.SIG_IGN)
        raise
    finally:
        for s, handler in before.items():
            if signal.getsignal(s) is not signal.SIG_IGN:
                signal.signal(s, handler)
        _deferring.clear()
        _requested.clear()


def _watch(name: str, wait: Callable[[], bool]) -> None:
    # A parent started in the background of a shell script passes on that SIGINT is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _finished.clear()
    threading.Thread(target=_stop_after, args=(wait,), name=f"watch {name}", daemon=True).start()


def _wait_for_end_of_input() -> bool:
    """Whether it ended after something had come."""
    with contextlib.suppress(OSError):  # closed from the start
        begun = os.name == "nt" and _wait_for_end_of_pipe()
        while os.read(0, 4096):
            begun = True
        return begun
    return False


def _wait_for_end_of_pipe() -> bool:
    """On Windows, look into the pipe now and then instead of waiting in a read.

    While a read is pending there, ``import numpy`` waits for it forever (numpy issue 24290).
    """
    import ctypes
    import msvcrt

    handle = ctypes.c_void_p(msvcrt.get_osfhandle(0))
    waiting = ctypes.c_ulong()
    begun = False
    while ctypes.windll.kernel32.PeekNamedPipe(handle, None, 0, None, ctypes.byref(waiting), None):
        if waiting.value:
            begun = bool(os.read(0, waiting.value))
        time.sleep(0.2)
    return begun


def _wait_for_end_of_process(pid: int) -> bool:
    if os.name == "nt":  # os.kill(pid, 0) would end the process there
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = kernel.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE
        if handle:
            kernel.WaitForSingleObject(ctypes.c_void_p(handle), 0xFFFFFFFF)
        return True
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # somebody else's, and alive
            pass
        time.sleep(0.5)


def _stop_after(wait: Callable[[], bool]) -> None:
    if not wait() or _finished.is_set() or not _stopping.acquire(blocking=False):
        return  # two reasons are one request: a second interrupt would cut the saving short
    if hasattr(signal, "pthread_kill"):  # also wakes the main thread from a system call
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
    left = GRACE
    while left > 0:
        time.sleep(0.1)
        left = SAVING if _deferring.is_set() else left - 0.1
    os._exit(EXIT_CANCELLED)

"""Looks at very many files: in order, stopped soon, and side by side where the storage is waited for."""

import threading
import time

import pytest

from emim.errors import Cancelled
from emim.machine.looks import AT_ONCE, FIRST, SLOW, look_at_each

PATHS = [str(i) for i in range(2 * AT_ONCE + 3)]


@pytest.mark.parametrize("slow", [False, True])
def test_looks_come_in_order_and_threads_only_wait_together(slow):
    threads = set()

    def look(path):
        threads.add(threading.get_ident())
        if slow:
            time.sleep(2 * SLOW)
        return int(path)

    assert look_at_each(look, PATHS) == list(range(len(PATHS)))
    assert (threads == {threading.get_ident()}) is not slow
    assert look_at_each(look, []) == []


def test_a_stop_is_noticed_between_looks():
    looked = []
    with pytest.raises(Cancelled):
        look_at_each(looked.append, PATHS, lambda: len(looked) > FIRST)
    assert looked == PATHS[: FIRST + AT_ONCE]


def test_what_a_look_raises_is_raised():
    with pytest.raises(ValueError):
        look_at_each(lambda path: int(path + "x"), PATHS)

"""signals.py: every stop signal is told once, by whichever thread notices it first."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from duckfast.signals import STOP_SIGNALS, StopSignals

DEADLINE = 30.0  # seconds; reached only when the signal is lost


def handlers() -> list[object]:
    return [signal.getsignal(signum) for signum in STOP_SIGNALS]


def test_signal_is_told_in_its_handler() -> None:
    told: list[int] = []
    with StopSignals(told.append):
        for signum in STOP_SIGNALS:
            signal.raise_signal(signum)
    assert told == list(STOP_SIGNALS)


def test_signal_that_both_threads_notice_is_told_once() -> None:
    told: list[int] = []
    with StopSignals(told.append) as signals, signals.watched():
        for _ in range(50):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
    assert sorted(told) == sorted([signal.SIGTERM, signal.SIGINT] * 50)


def test_signal_is_told_while_the_main_thread_sleeps() -> None:
    told = threading.Event()
    with StopSignals(lambda signum: told.set()) as signals, signals.watched():
        # Delivered to another thread, so that nothing interrupts the wait of this one.
        other = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
        other.start()
        assert told.wait(DEADLINE)
        other.join()


def test_everything_is_as_before_afterwards() -> None:
    before = handlers()
    with StopSignals(lambda signum: None) as signals, signals.watched():
        assert handlers() != before
    assert handlers() == before
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    assert wakeup == -1


def test_error_inside_leaves_everything_as_before() -> None:
    before = handlers()
    with pytest.raises(RuntimeError), StopSignals(lambda signum: None) as signals, signals.watched():
        raise RuntimeError
    assert handlers() == before


def test_other_threads_change_nothing() -> None:
    before = handlers()
    seen = []

    def enter() -> None:
        with StopSignals(lambda signum: None) as signals, signals.watched():
            seen.append(handlers())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # 3.12 on: fork() beside threads
def test_forked_child_has_the_handlers_of_before() -> None:
    before = handlers()
    with StopSignals(lambda signum: None) as signals, signals.watched():
        child = os.fork()
        if child == 0:
            os._exit(0 if handlers() == before and signal.set_wakeup_fd(-1) == -1 else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0

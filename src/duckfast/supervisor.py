"""The parent of worker processes: how many there are, which of them serve, when each has to go. Knows no HTTP and no application.

Everything is one rule, kept by _settle(): of the current generation as many workers as wanted are starting or ready; only
when all of them are ready do the others (an older generation, one that asked to be replaced, one too many) retire, one by
one. A reload is a new generation, a recycled worker one that does not count any more, a dead one is simply missing. So a
replacement always serves before anybody goes.

The parent has one thread and imports no application (but for --preload), and waits only for its own children. The file is
long because this rule and all that can happen to a worker are one state machine.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import logging
import math
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from . import __version__, control, environment, handover, identity, server, tls
from . import log as logs
from . import worker as workers
from .config import Config
from .control import Line, Message
from .exceptions import DuckfastError, ImportFailure, WorkersFailure
from .handover import HandedWorker, Handover
from .listening import Listening
from .log import log
from .pulse import Pulses
from .reloader import Reloader, summary
from .signals import REOPEN_SIGNAL
from .systemd import Notifier, give_descriptors

STOP_GRACEFULLY = {signal.SIGTERM}
STOP_QUICKLY = {signal.SIGINT, signal.SIGQUIT}
HANDLED = STOP_GRACEFULLY | STOP_QUICKLY | {
    signal.SIGHUP, REOPEN_SIGNAL, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD
}  # fmt: skip

BOOT_TRIES = 3  # workers that may die without a word before the first has ever been ready
CRASH_LOOP = 5  # replacements that fail one after another while nobody serves
QUICK_DEATH = 5.0  # seconds: a worker that served for less counts as a failed start
FIRST_PAUSE, MOST_PAUSE = 0.5, 30.0  # seconds before the next try after a failure, doubled from the one to the other
RETIRE_PACE = 1.0  # seconds at most between two retirements
REPORT_GRACE = 2.0  # seconds for a hung worker to say what it does
STACKS_GRACE = 0.5  # seconds for the stacks that a signal has asked for
CLEANUP_TIME = 10.0  # seconds for what follows the graceful timeout: cancelled tasks, exit handlers
MOST_CHECK_PAUSE = 5.0  # seconds between looks at the pulses
CHECKS_PER_TIMEOUT = 4
LATE = 1.0  # seconds: a supervisor that was itself held up this long does not judge the silence of others
FOREVER = math.inf
WAKE_SIZE = 512  # bytes; the interpreter writes one per signal


class State(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    RETIRING = "retiring"  # told to go; finishes what it has while others serve
    STOPPING = "stopping"  # told to end
    REPORTING = "reporting"  # hung or too slow to go: asked what it does
    DOOMED = "doomed"  # its stacks are being written; killed next


@dataclass(eq=False)
class Worker:
    """One child."""

    pid: int
    generation: int
    line: Line
    cell: int  # of its pulse
    slot: int  # which copy of the listeners it serves
    state: State = State.STARTING
    ready: float | None = None  # since when
    deadline: float | None = None  # of its state
    expires: float | None = None  # when its lifetime ends
    leaving: str = ""  # why it is to be replaced; "": it is not
    failure: DuckfastError | None = None  # why it could not start, in its own words


class Supervisor:
    """Runs `config.workers` processes until stopped: `Supervisor(Config("module:app", workers=4)).run()`.

    `reread`, when given, reads the configuration anew for SIGHUP; it raises a DuckfastError to refuse.
    """

    def __init__(
        self, config: Config, reread: Callable[[], Config] | None = None, daemon: identity.Daemon | None = None
    ) -> None:
        self.config = config
        self._reread = reread
        self._daemon = daemon
        self._notifier = Notifier()
        self._count = config.workers or 1
        self._workers: list[Worker] = []
        self._generation = self._generations = 1
        self._before: tuple[int, Config, Listening] | None = None  # what to go back to if the reload in progress fails
        self._order: Callable[[], None] | None = None  # asked for while a reload is in progress
        self._served = False  # some worker has been ready
        self._stopping = False
        self._killed_by = 0  # the second stop signal
        self._failures = 0  # starts that failed in a row
        self._spawn_at = 0.0  # not before; math.inf: not before a file has changed
        self._retire_at = 0.0
        self._check_at = 0.0
        self._asked: list[tuple[Worker, str]] = []  # to be recycled, in order, and why
        self._failure: DuckfastError | None = None
        self._app: Callable[..., Any] | None = None
        self._reloader: Reloader | None = None
        self._checking: subprocess.Popen[bytes] | None = None
        self._checking_until = 0.0

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """Serve until a stop signal. Only in the main thread. Raises a DuckfastError when the server cannot start, or go on."""
        identity.prepare(self.config)
        logs.configure(self.config)
        handed = Handover.take()
        self._notifier = Notifier.take(os.environ)
        identity.set_title(self.config.name, "supervisor")
        self._pulses = Pulses(handed.pulses if handed else None)
        self._signals, sender = socket.socketpair()
        with self._signals, sender:
            self._signals.setblocking(False)
            sender.setblocking(False)
            previous = {signum: signal.signal(signum, _note) for signum in HANDLED}
            wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # an earlier image of this process blocked them for its exec
            try:
                self._supervise(handed)
            finally:
                signal.set_wakeup_fd(wakeup)
                for signum, handler in previous.items():
                    signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        if self._killed_by:
            server.flush_output()
            os._exit(server.SIGNAL_EXIT_BASE + self._killed_by)
        if self._failure is not None:
            raise self._failure
        log.info("stopped")

    def _supervise(self, handed: Handover | None) -> None:
        if self.config.reload:
            self._reloader = Reloader(self.config)
        tls.check(self.config)
        if tls.is_configured(self.config):
            tls.share_ticket_keys()  # so that each worker resumes what another began
        inherited = Listening.adopt(handed.listening) if handed else None
        self._listening = Listening.open(self.config, self._count, inherited)
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: self._listening.close())
            stack.enter_context(identity.pid_file(self.config))
            stack.callback(self._abandon_children)
            if self.config.preload or not isinstance(self.config.app, str):
                environment.apply(self.config)
                identity.drop(identity.resolve(self.config))  # no application runs with more rights than it asked for
                self._app, _ = server.load(self.config)
                gc.freeze()  # what was loaded stays shared with the workers: a collection would touch, so copy, every page
            if self._reloader is not None:
                self._reloader.start()
            if handed is not None and inherited is not None:
                self._adopt(handed.workers, inherited)
            while not (self._stopping and not self._workers):
                self._settle()
                self._wait()

    def _abandon_children(self) -> None:
        """The last thing: without an error of our own there are no workers any more."""
        for child in self._workers:
            os.kill(child.pid, signal.SIGTERM)
        if self._reloader is not None and self._reloader.running:
            self._reloader.stop()

    def _wait(self) -> None:
        """Sleep until something happens or is due, and handle it."""
        poll = select.poll()
        talking = {child.line.fileno(): child for child in self._workers}
        for fd in (self._signals.fileno(), *talking):
            poll.register(fd, select.POLLIN)
        if self._reloader is not None and self._reloader.running:
            poll.register(self._reloader.line.fileno(), select.POLLIN)
        due = self._next_due()
        ready = {fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000 + 1)}
        late = time.monotonic() - due > LATE
        for fd in ready & talking.keys():
            for message in talking[fd].line.hear() or ():
                self._on_message(talking[fd], message)
        if self._reloader is not None and self._reloader.running and self._reloader.line.fileno() in ready:
            self._on_change(self._reloader.changes())
        if self._signals.fileno() in ready:
            for signum in self._signals.recv(WAKE_SIZE):
                self._on_signal(signum)
        self._reap()
        self._look_at_workers(late)

    def _next_due(self) -> float:
        now = time.monotonic()
        times = [self._check_at]
        for child in self._workers:
            times += [at for at in (child.deadline, child.expires) if at is not None]
        if not self._stopping:
            times.append(self._spawn_at if self._spawn_at > now else self._check_at)
            times.append(self._retire_at if self._retire_at > now else self._check_at)
        if self._checking is not None:
            times.append(self._checking_until)
        return min(times)

    # ------------------------------------------------------------------ the rule

    def _active(self) -> list[Worker]:
        """Workers that count, by their slots: of this generation, starting or ready, and not about to be replaced."""
        active = [
            child
            for child in self._workers
            if child.generation == self._generation and not child.leaving and child.state in (State.STARTING, State.READY)
        ]
        return sorted(active, key=lambda child: child.slot)

    def _settle(self) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        active = self._active()
        if self._asked and self._before is None and not any(
            child.leaving and child.state is State.READY for child in self._workers
        ):
            child, reason = self._asked.pop(0)
            if child in active and child.state is State.READY:
                child.leaving = reason
                active.remove(child)
        while len(active) < self._count and now >= self._spawn_at:
            active.append(self._spawn(active))
        if sum(child.state is State.READY for child in active) < self._count:
            return
        if self._before is not None:
            self._finish_reload()
        for surplus in active[self._count:]:
            surplus.leaving = "there is one too many"
        self._listening.keep(self._count)
        if now >= self._retire_at:
            staying = active[: self._count]
            for child in self._workers:
                if child.state in (State.STARTING, State.READY) and child not in staying:
                    self._retire(child)
                    self._retire_at = now + RETIRE_PACE
                    break
        if self._order is not None and self._before is None:
            order, self._order = self._order, None
            order()

    def _retire(self, child: Worker) -> None:
        """It stops accepting, and goes when its connections have ended; with --reload at once, so that nobody sees old code."""
        log.info("worker %d retires%s", child.pid, f": {child.leaving}" if child.leaving else "")
        if child.state is State.STARTING or self.config.reload or not child.line.say("retire"):
            self._stop(child)
            return
        child.state = State.RETIRING
        child.deadline = time.monotonic() + self._time_to_end()

    def _stop(self, child: Worker) -> None:
        child.state = State.STOPPING
        child.deadline = time.monotonic() + self._time_to_end()
        os.kill(child.pid, signal.SIGTERM)

    def _hurry(self, child: Worker) -> None:
        """It gives its requests no time, only its own end and the application's."""
        child.state = State.STOPPING
        child.deadline = time.monotonic() + CLEANUP_TIME
        if not child.line.say("hurry"):
            os.kill(child.pid, signal.SIGTERM)

    def _time_to_end(self) -> float:
        return self.config.timeout_graceful_shutdown + self.config.timeout_lifespan + CLEANUP_TIME

    # ------------------------------------------------------------------ births

    def _spawn(self, active: Iterable[Worker]) -> Worker:
        """Fork one worker. Signals wait meanwhile: in the child they would be told to this process."""
        taken = {child.slot for child in active}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        ours, theirs = control.pair()
        cell = self._pulses.take()
        server.flush_output()  # or the child would write what is in the buffers once more
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._be_worker(theirs, cell, slot)
        except OSError as error:
            ours.close()
            self._pulses.give_back(cell)
            raise WorkersFailure(f"the system starts no more processes: {error}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            theirs.close()
        child = Worker(pid, self._generation, ours, cell, slot)
        if self.config.timeout_worker_startup is not None:
            child.deadline = time.monotonic() + self.config.timeout_worker_startup
        self._workers.append(child)
        log.debug("worker %d starts", pid)
        return child

    def _be_worker(self, line: Line, cell: int, slot: int) -> NoReturn:
        """The child's life. It never returns to what this process was about to do."""
        code: int = 1
        try:
            signal.set_wakeup_fd(-1)
            for signum in HANDLED:
                signal.signal(signum, signal.SIG_DFL)
            for signum in workers.IGNORED:
                signal.signal(signum, signal.SIG_IGN)
            self._signals.close()
            for child in self._workers:
                child.line.close()
            if self._reloader is not None and self._reloader.running:
                self._reloader.line.close()
            self._listening.close_others(slot)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            code = workers.Worker(self.config, self._app, self._listening.of(slot), line, lambda: self._pulses.beat(cell)).run()
        except SystemExit as end:  # the application wants the end of its process
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            workers.end(code)

    def _adopt(self, handed: list[HandedWorker], listening: Listening) -> None:
        """Workers of the image of this process that was here before: they serve until ours are ready."""
        for one in handed:
            line = Line(socket.socket(fileno=one.fd))
            line.socket.setblocking(False)
            child = Worker(one.pid, 0, line, self._pulses.take(one.cell), one.slot, State.READY, time.monotonic())
            if one.retiring:
                child.state = State.RETIRING
                child.deadline = time.monotonic() + self._time_to_end()
            self._workers.append(child)
        self._served = True
        self._before = (0, self.config, listening)
        log.info("this is duckfast %s now: starting %s, the old serve meanwhile", __version__, in_words(self._count))

    # ------------------------------------------------------------------ what workers say

    def _on_message(self, child: Worker, message: Message) -> None:
        match message["say"]:
            case "ready":
                self._on_ready(child, message)
            case "failed":
                if message["traceback"]:
                    child.failure = ImportFailure(message["message"], message["traceback"])
                else:
                    child.failure = WorkersFailure(message["message"])
                child.failure.exit_code = message["exit_code"]
            case "recycle":
                if child.state is State.READY and not child.leaving and child not in [asked for asked, _ in self._asked]:
                    log.info("worker %d is to be replaced: %s", child.pid, message["reason"])
                    self._asked.append((child, message["reason"]))
            case "reported":
                self._show_stacks(child)

    def _on_ready(self, child: Worker, message: Message) -> None:
        if child.state is not State.STARTING:
            return
        child.state = State.READY
        child.ready = time.monotonic()
        child.deadline = None
        if self.config.workers_lifetime is not None:
            child.expires = child.ready + self.config.workers_lifetime + random.uniform(0, self.config.workers_lifetime_jitter)
        self._failures = 0
        log.debug("worker %d is ready", child.pid)
        ready = sum(one.state is State.READY for one in self._active())
        if not self._served and ready >= self._count:
            self._served = True
            processes = in_words(self._count)
            self._notifier.ready(processes)
            if self._daemon is not None:
                self._daemon.ready()
            for address in self._listening.addresses(tls.scheme(self.config)):
                log.info("duckfast %s serving %s (%s, %s) on %s (pid %d)",
                         __version__, message["app"], message["engine"], processes, address, os.getpid())

    # ------------------------------------------------------------------ deaths

    def _reap(self) -> None:
        """Takes note of children that have ended; others' children are none of our business, but as PID 1 they are."""
        for child in list(self._workers):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                for message in child.line.hear() or ():  # its last words
                    self._on_message(child, message)
                self._on_end(child, os.waitstatus_to_exitcode(status))
        if self._checking is not None and self._checking.poll() is not None:
            self._on_checked(self._checking.returncode)
        if os.getpid() == 1:
            self._reap_strangers()

    def _reap_strangers(self) -> None:
        """Orphans that the system has given to this process because it is PID 1."""
        own = {child.pid for child in self._workers}
        own |= {self._checking.pid} if self._checking is not None else set()
        own |= {self._reloader.pid} if self._reloader is not None and self._reloader.running else set()
        with contextlib.suppress(ChildProcessError):
            while True:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is None or found.si_pid in own:
                    return  # one of ours is handled by the next turn
                os.waitpid(found.si_pid, os.WNOHANG)

    def _on_end(self, child: Worker, code: int) -> None:
        self._workers.remove(child)
        child.line.close()
        self._pulses.give_back(child.cell)
        self._asked = [(asked, reason) for asked, reason in self._asked if asked is not child]
        how = f"exit code {code}" if code >= 0 else f"killed by {signal_name(-code)}"
        if self._stopping or child.state in (State.RETIRING, State.STOPPING):
            self._retire_at = 0.0
            quiet = code in (0, -signal.SIGTERM) or child.failure is not None
            log.log(logging.DEBUG if quiet else logging.WARNING, "worker %d has ended: %s", child.pid, how)
            if code > 0 and self._stopping and self._failure is None:
                self._failure = WorkersFailure(f"worker {child.pid} ended with {how}")
                self._failure.exit_code = code
        elif child.ready is None:
            self._on_failed_start(child, how)
        else:
            if child.state is not State.DOOMED:
                log.error("worker %d has died: %s; another takes its place", child.pid, how)
            if time.monotonic() - child.ready < QUICK_DEATH:
                self._pause()

    def _on_failed_start(self, child: Worker, how: str) -> None:
        error = child.failure or WorkersFailure(f"worker {child.pid} ended before it was ready: {how}")
        if child.generation != self._generation:
            return
        if self._before is not None:
            self._abandon_reload(error)
            return
        self._pause()
        serving = any(one.state is State.READY for one in self._workers)
        if self._reloader is not None and not serving:
            server.tell(error)
            log.error("nothing is served until a file changes")
            self._spawn_at = FOREVER
        elif not self._served and (child.failure is not None or self._failures >= BOOT_TRIES):
            self._fail(error)
        elif not serving and self._failures >= CRASH_LOOP:
            server.tell(error)
            self._fail(WorkersFailure(f"{self._failures} workers in a row could not start, and none serves"))
        else:
            server.tell(error)
            log.error("the next try is in %.1fs", self._spawn_at - time.monotonic())

    def _pause(self) -> None:
        self._failures += 1
        self._spawn_at = time.monotonic() + min(MOST_PAUSE, FIRST_PAUSE * 2 ** (self._failures - 1))

    def _fail(self, error: DuckfastError) -> None:
        self._failure = error
        self._stop_all()

    # ------------------------------------------------------------------ the hung and the late

    def _look_at_workers(self, late: bool) -> None:
        now = time.monotonic()
        patience = self.config.timeout_worker_healthcheck
        for child in self._workers:
            if child.state is State.READY and patience is not None and not late and self._pulses.silence(child.cell) > patience:
                self._ask_what_it_does(child, f"has not answered for {patience:g}s")
            elif child.expires is not None and now >= child.expires:
                child.expires = None
                self._on_message(child, {"say": "recycle", "reason": "its lifetime is over"})
            elif child.deadline is not None and now >= child.deadline:
                match child.state:
                    case State.STARTING:
                        child.failure = WorkersFailure(
                            f"worker {child.pid} was not ready within {self.config.timeout_worker_startup:g}s"
                            " (--timeout-worker-startup)")
                        self._ask_what_it_does(child, "is not ready yet")
                    case State.REPORTING:
                        self._show_stacks(child)
                    case State.DOOMED:
                        child.deadline = None
                        os.kill(child.pid, signal.SIGKILL)
                    case _:
                        self._ask_what_it_does(child, "has not ended in time")
        if self._checking is not None and now >= self._checking_until:
            self._checking.kill()
        self._notifier.maybe_beat()
        pause = MOST_CHECK_PAUSE if patience is None else min(MOST_CHECK_PAUSE, patience / CHECKS_PER_TIMEOUT)
        if self._notifier.interval is not None:
            pause = min(pause, self._notifier.interval / 2)
        self._check_at = now + pause

    def _ask_what_it_does(self, child: Worker, why: str) -> None:
        """Its last chance to speak. What it hears it answers on a thread of its own; what it cannot hear is a signal's turn."""
        log.error("worker %d %s: it is killed, what it does follows", child.pid, why)
        child.state = State.REPORTING
        child.deadline = time.monotonic() + REPORT_GRACE
        child.line.say("report")

    def _show_stacks(self, child: Worker) -> None:
        if child.state is State.REPORTING:
            child.state = State.DOOMED
            child.deadline = time.monotonic() + STACKS_GRACE
            os.kill(child.pid, workers.STACKS_SIGNAL)

    # ------------------------------------------------------------------ signals

    def _on_signal(self, signum: int) -> None:
        if signum in STOP_GRACEFULLY | STOP_QUICKLY:
            self._on_stop(signum)
        elif self._stopping:
            return
        elif signum == signal.SIGHUP:
            self._reload("SIGHUP")
        elif signum == REOPEN_SIGNAL:
            self._reopen_logs(signal_name(signum))
        elif signum == signal.SIGUSR2:
            self._upgrade("SIGUSR2")
        elif signum in (signal.SIGTTIN, signal.SIGTTOU):
            self._change_count(self._count + (1 if signum == signal.SIGTTIN else -1), signal_name(signum))

    def _reopen_logs(self, why: str) -> None:
        logs.reopen()
        for child in self._workers:
            child.line.say("reopen")
        log.info("%s: the log files were opened anew", why)

    def _change_count(self, count: int, why: str) -> None:
        if count < 1 or self._before is not None:
            log.warning("%s: the number of workers stays %d%s", why, self._count, "" if count < 1 else " while they are reloaded")
            return
        try:
            # Fewer slots: _settle() lets go of their sockets together with their workers.
            self._listening = Listening.open(self.config, max(count, len(self._listening.sets)), self._listening)
        except DuckfastError as error:
            log.error("%s: the number of workers stays %d: %s", why, self._count, error)
            return
        self._count = count
        log.info("%s: %s", why, in_words(count))

    def _on_stop(self, signum: int) -> None:
        name = signal_name(signum)
        if self._stopping:
            log.warning("%s again: ending at once", name)
            for child in self._workers:
                os.kill(child.pid, signal.SIGKILL)
            self._killed_by = signum
            return
        if signum in STOP_QUICKLY:
            log.info("%s: stopping quickly", name)
            for child in self._workers:
                self._hurry(child)
        else:
            log.info("%s: stopping, requests in progress have %gs; once more ends at once",
                     name, self.config.timeout_graceful_shutdown)
        self._stop_all()

    def _stop_all(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._notifier.stopping()
        self._listening.close()
        for child in self._workers:
            if child.state in (State.STARTING, State.READY, State.RETIRING):
                self._stop(child)

    # ------------------------------------------------------------------ new code

    def _on_change(self, paths: list[str]) -> None:
        if not paths or self._stopping:
            return
        log.info("changed: %s; reloading", summary(paths))
        if not self._workers:  # the last try has failed: there is nothing to go back to
            self._failures = 0
            self._spawn_at = 0.0
        else:
            self._reload("--reload")

    def _reload(self, why: str) -> None:
        """A new generation, of what the configuration says now."""
        if self._before is not None or self._checking is not None:
            self._order = lambda: self._reload(why)
            return
        if self._app is not None:
            self._upgrade(why)  # the application is in this process: only a new image of it can load another
            return
        before = (self._generation, self.config, self._listening)
        try:
            config = self._reread() if self._reread is not None else self.config
            identity.prepare(config)
            listening = Listening.open(config, config.workers or 1, self._listening)
        except DuckfastError as error:
            log.error("%s: nothing is reloaded: %s", why, error)
            return
        self._before = before
        self.config = config
        self._listening = listening
        self._count = config.workers or 1
        self._generations += 1
        self._generation = self._generations
        self._failures = 0
        self._spawn_at = 0.0
        logs.configure(config)
        self._notifier.reloading()
        log.info("%s: starting %s anew, the old serve meanwhile", why, in_words(self._count))

    def _finish_reload(self) -> None:
        assert self._before is not None
        self._before[2].close(but=self._listening)
        self._before = None
        self._notifier.ready(in_words(self._count))
        log.info("reloaded: %s ready, the old retire", in_words(self._count))

    def _abandon_reload(self, error: DuckfastError) -> None:
        assert self._before is not None
        for child in self._workers:
            if child.generation == self._generation and child.state in (State.STARTING, State.READY):
                self._stop(child)
        self._listening.close(but=self._before[2])
        self._generation, self.config, self._listening = self._before
        self._before = None
        self._count = self.config.workers or 1
        server.tell(error)
        self._notifier.ready(f"{in_words(self._count)}, the reload failed")
        log.error("the reload has failed; the old workers stay")

    def _upgrade(self, why: str) -> None:
        """Replace this process's image by a new one, once another process has shown that it would start."""
        if self._before is not None or self._checking is not None:
            self._order = lambda: self._upgrade(why)
            return
        log.info("%s: checking that a new duckfast starts", why)
        variables = {**environment.original(), handover.VARIABLE: handover.CHECK}
        try:
            self._checking = subprocess.Popen(command(), env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except OSError as error:
            log.error("the upgrade has failed, everything stays: %s", error)
            return
        limit = self.config.timeout_worker_startup
        self._checking_until = FOREVER if limit is None else time.monotonic() + limit

    def _on_checked(self, code: int) -> None:
        self._checking = None
        if self._stopping:
            return
        if code != 0:
            log.error("the upgrade has failed: a new duckfast does not start (exit code %d); everything stays", code)
            return
        handed = Handover(
            self._pulses.fd,
            self._listening.hand_over(),
            [
                HandedWorker(child.pid, child.line.fileno(), child.cell, child.slot, child.state is not State.READY)
                for child in self._workers
            ],
        )
        if self._reloader is not None:
            self._reloader.stop()
        logs.flush()
        # Their default action would end the new image before it handles them; it lets them come when it does.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        handed.give()
        # It reads env files itself, and finds what systemd told this one.
        variables = environment.original() | self._notifier.environment()
        give_descriptors(variables, self._listening.passed())
        try:
            os.execve(command()[0], command(), variables)
        except OSError as error:
            handed.take_back()
            self._listening.take_back()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            log.error("the upgrade has failed, everything stays: %s", error)


def command() -> list[str]:
    """The command line of this process as it was given, for its next image."""
    return [sys.executable, *sys.orig_argv[1:]]


def in_words(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def _note(signum: int, frame: object) -> None:
    """The wake-up descriptor tells the loop; a handler of Python's must exist for that."""

"""ASGI HTTP: one exchange per request with its receive() and send(), and the real task that runs the application.

Owns the order of messages (ASGI HTTP 2.5), what an application's mistakes lead to, and the bound on applications that go on
after their response. Refuses to know bytes on the wire (the channel writes them), scopes (_scope) and how a loop is started
(asgi.py). It is one file, longer than most, because exchange, call and awaitables hand the same state to each other.

What costs little here: send() takes effect when it is called and returns a shared object that is ready at once, unless the
kernel is behind; receive() takes its message only in the step that hands it over, so a cancelled one loses nothing.
Several calls of receive() may wait at a time: they are served in the order of their asking.
"""

import asyncio
import collections.abc
import contextvars
import errno
import logging
import os
import stat
import sys

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetObject
from cpython.long cimport PyLong_AsLongAndOverflow
from cpython.object cimport PyObject, PyObject_Call
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy, memset
from libc.stdint cimport int64_t

from duckfast._client cimport ClientSocket
from duckfast._debug cimport ALIVE_EXCHANGE, DUCKFAST_DEBUG, count_alive
from duckfast._http1 cimport SEND_CHUNKED
from duckfast._parser cimport Head
from duckfast._poller cimport fine_now
from duckfast._reactor cimport IN_LINE, INSIDE, ITS_TURN, RESPONSE_SHORT, SENT_TOO_LONG, Finished, Sent, describe_all
from duckfast._writer cimport (
    NO_MEMORY, WRITE_OK, ResponseHead, WriteError, append, describe, free_buffer, write_field, write_interim,
)

from duckfast.exceptions import ApplicationError, ClientDisconnected

cdef extern from "Python.h":
    """
    /* The slots that Cython does not fill: one step of an awaitable without an exception as the way to say "done". */
    static void duckfast_set_steps(PyTypeObject *type, sendfunc send, iternextfunc next) {
        type->tp_as_async->am_send = send;
        type->tp_iternext = next;
        PyType_Modified(type);
    }
    #if PY_VERSION_HEX < 0x030C0000
    static int duckfast_is_ours_alone(PyObject *task) {
        PyWeakReference *weak = *(PyWeakReference **)PyObject_GET_WEAKREFS_LISTPTR(task);
        PyObject **attributes = _PyObject_GetDictPtr(task);
        return Py_REFCNT(task) == 1 && weak != NULL && weak->wr_next == NULL &&
               (attributes == NULL || *attributes == NULL || PyDict_GET_SIZE(*attributes) == 0);
    }
    /* A task begins with its loop, as every FutureObj does in CPython's _asynciomodule.c. Proved before it is relied on. */
    static PyObject *duckfast_loop_of(PyObject *task) { return *(PyObject **)((char *)task + sizeof(PyObject)); }
    static void duckfast_set_loop(PyObject *task, PyObject *loop) {
        PyObject **place = (PyObject **)((char *)task + sizeof(PyObject));
        PyObject *before = *place;
        Py_INCREF(loop);
        *place = loop;
        Py_XDECREF(before);
    }
    #else
    static int duckfast_is_ours_alone(PyObject *task) { return 0; }
    static PyObject *duckfast_loop_of(PyObject *task) { return NULL; }
    static void duckfast_set_loop(PyObject *task, PyObject *loop) {}
    #endif
    /* A bound method without the search for its name. */
    static PyObject *duckfast_bind(PyObject *method, PyObject *self) {
        return Py_TYPE(method)->tp_descr_get(method, self, (PyObject *)Py_TYPE(self));
    }
    """
    ctypedef struct PyTypeObject:
        int (*tp_init)(object self, object arguments, object keywords) except -1
    ctypedef int (*sendfunc)(PyObject* iterator, PyObject* value, PyObject** result)
    ctypedef PyObject* (*iternextfunc)(PyObject* iterator)
    int PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT
    int PyIter_Send(object iterator, object value, PyObject** result) except -1
    bint PyCoro_CheckExact(object candidate)
    void duckfast_set_steps(PyTypeObject* type, sendfunc send, iternextfunc next)
    object duckfast_bind(object method, object self)
    bint duckfast_is_ours_alone(PyObject* task)
    PyObject* duckfast_loop_of(PyObject* task)
    void duckfast_set_loop(PyObject* task, object loop)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1

cdef size_t HIGH_WATER = 64 * 1024   # bytes of body that wait for receive() before reading stops; asyncio streams 64 K
cdef int MOST_RETIRED = 64           # finished tasks kept for reuse: as many as requests usually run at a time
cdef size_t GATHER = 12 * 1024       # bytes of small pieces that leave together; more is sent at once
cdef int64_t HOLD = 1_000_000        # nanoseconds that the responses of a tick may wait for each other
cdef int64_t LONG_STEP = 5_000_000   # nanoseconds; after a first step that took longer ...
cdef int64_t PROMPT = 1_000_000_000  # ... no response waits for another during these
cdef int ROUNDS = 16                 # of pipelined requests in a tick, before the loop gets its turn
cdef int MOST_BACKGROUND = 16        # applications of one connection that go on after their responses; then the next waits

cdef object _logger = logging.getLogger("duckfast")
cdef object _Task = asyncio.Task


# --- awaitables ---------------------------------------------------------------------------------------------------

@cython.final
cdef class Ready:
    """What send() returns when there is nothing to wait for: one object for all of them."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        _throw(kind, value, traceback)

    def close(self):
        pass


cdef Ready READY = Ready.__new__(Ready)


@cython.final
@cython.freelist(32)
cdef class Waiting:
    """One call of receive(), or of a send() that is held back: asks the exchange at every step, sleeps on a future between."""

    cdef int step(self, PyObject** result) except -1:
        if self.for_message:
            message = self.exchange.take_message()
            if message is not None:
                self.future = None
                Py_INCREF(message)
                result[0] = <PyObject*>message
                return PYGEN_RETURN
        elif not self.exchange.must_wait(self.ticket):
            self.future = None
            Py_INCREF(None)
            result[0] = <PyObject*>None
            return PYGEN_RETURN
        self.future = self.sleep()
        Py_INCREF(self.future)
        result[0] = <PyObject*>self.future
        return PYGEN_NEXT

    cdef object sleep(self):
        cdef ASGIExchange exchange = self.exchange
        future = exchange.service._create_future()
        future._asyncio_future_blocking = True   # what makes a task wait for it: asyncio/futures.py, Future.__await__
        if self.for_message:
            if exchange.receivers is None:
                exchange.receivers = []
            exchange.receivers.append(future)
        else:
            if exchange.senders is None:
                exchange.senders = []
            exchange.senders.append(future)
        return future

    cdef int leave(self) except -1:
        """Not waiting any more: cancelled, or closed."""
        cdef list waiters = self.exchange.receivers if self.for_message else self.exchange.senders
        if self.future is not None and waiters is not None and self.future in waiters:
            waiters.remove(self.future)
        self.future = None
        if self.ticket is not None:
            self.exchange.withdraw(self.ticket)
        return 0

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise RuntimeError   # replaced by _next_waiting below

    def send(self, value):
        cdef PyObject* result = NULL
        cdef int status = self.step(&result)
        outcome = <object>result
        Py_DECREF(outcome)
        if status == PYGEN_NEXT:
            return outcome
        raise StopIteration(outcome)

    def throw(self, kind, value=None, traceback=None):
        self.leave()
        _throw(kind, value, traceback)

    def close(self):
        self.leave()


cdef int _throw(object kind, object value, object traceback) except -1:
    if isinstance(kind, BaseException):
        raise kind
    if value is None:
        value = kind()
    elif not isinstance(value, BaseException):
        value = kind(value)
    raise value.with_traceback(traceback)


cdef int _send_waiting(Waiting self, PyObject* value, PyObject** result) except -1:
    return self.step(result)


cdef PyObject* _next_waiting(Waiting self) except? NULL:
    cdef PyObject* result = NULL
    if self.step(&result) == PYGEN_NEXT:
        return result
    return _stop(result)


cdef PyObject* _stop(PyObject* result) noexcept:
    """An iterator's way to return a value. Takes over the reference; None needs no exception at all."""
    outcome = <object>result
    Py_DECREF(outcome)
    if outcome is not None:
        PyErr_SetObject(StopIteration, outcome)
    return NULL


cdef int wake(list waiters) except -1:
    if waiters is not None and len(waiters) != 0:
        for future in waiters:
            if not future.done():
                future.set_result(None)
        waiters.clear()
    return 0


# --- the application's task ---------------------------------------------------------------------------------------

@cython.final
@cython.freelist(64)
cdef class ApplicationCall:
    """The coroutine that a request's task drives: calls the application, steps it, and sees its end without a callback.

    The application is called in the first step, so whatever it does before its first await runs in the task already.
    """

    cdef int step(self, object value, PyObject** result) except -1:
        cdef ASGIExchange exchange = self.exchange
        cdef int status
        if exchange is None:
            raise RuntimeError("the application has ended already")
        try:
            if self.coroutine is None:
                self.coroutine = _call_application(exchange)
            status = PyIter_Send(self.coroutine, value, result)
        except BaseException as error:
            if self.failed(error):
                raise
            Py_INCREF(None)
            result[0] = <PyObject*>None
            return PYGEN_RETURN
        try:
            if status == PYGEN_RETURN:
                self.returned(<object>result[0])
            elif exchange.response == RESPONDED and not exchange.in_background:
                exchange.in_background = True
                exchange.service.note_background(exchange.served_by)
        except BaseException:
            Py_DECREF(<object>result[0])
            result[0] = NULL   # beside an exception, the task would take it for the outcome, and leave the exception to whoever comes
            raise
        return status

    cdef int returned(self, object value) except -1:
        cdef ASGIExchange exchange = self.exchange
        if value is not None:
            exchange.service.complain_of_result(value)
        return self.end(None)

    cdef bint failed(self, object error) except -1:
        """Whether the task is to end with this exception too: its own cancellation."""
        cdef ASGIService service = self.exchange.service
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            error.__traceback__ = error.__traceback__.tb_next   # the first line would be ours
        self.end(error)
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            # It ends the loop, not just the task, which nobody would ask for it.
            service._loop.call_soon(_raise, error, context=service._context)
            return False
        return isinstance(error, asyncio.CancelledError)

    cdef int end(self, object error) except -1:
        cdef ASGIExchange exchange = self.exchange
        cdef ASGIService service = exchange.service
        self.exchange = None
        self.coroutine = None
        if exchange.place == INSIDE:
            service.reactor.leave(exchange)
        service.forget(self)
        task, self.task = self.task, None
        try:
            exchange.application_ended(error)
            if task is not None and service._retired is not None and error is None and len(service._retired) < MOST_RETIRED:
                service._retired.append(task)
        finally:
            if exchange.in_background:
                exchange.in_background = False
                service.end_background(exchange.served_by)
            exchange.served_by = None
        return 0

    cdef int drop(self) except -1:
        """No task will step it again, and its request is ended by others."""
        cdef ASGIExchange exchange = self.exchange
        coroutine, self.coroutine = self.coroutine, None
        self.exchange = self.task = None
        if exchange is not None:
            exchange.service.forget(self)
        if coroutine is not None and PyCoro_CheckExact(coroutine):
            coroutine.close()
        return 0

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise RuntimeError   # replaced by _next_call below

    def send(self, value):
        cdef PyObject* result = NULL
        cdef int status = self.step(value, &result)
        outcome = <object>result
        Py_DECREF(outcome)
        if status == PYGEN_NEXT:
            return outcome
        raise StopIteration(outcome)

    def throw(self, *arguments):
        """The exception goes into the application, where it waits; cancelling the task comes this way."""
        if self.exchange is None:
            raise RuntimeError("the application has ended already")
        try:
            throw = getattr(self.coroutine, "throw", None)
            if throw is None:   # not started, or an awaitable that is no coroutine
                _throw(arguments[0], arguments[1] if len(arguments) > 1 else None, None)
            return throw(*arguments)
        except StopIteration as stop:
            self.returned(stop.value)
            raise
        except BaseException as error:
            if self.failed(error):
                raise
        raise StopIteration

    def close(self):
        if self.exchange is not None:
            close = getattr(self.coroutine, "close", None)
            if close is not None:
                close()
            self.end(asyncio.CancelledError())

    # What inspect, asyncio and anyio look at in a coroutine; it is the application's that they mean.

    @property
    def __name__(self):
        return getattr(self.coroutine, "__name__", "ApplicationCall")

    @property
    def __qualname__(self):
        return getattr(self.coroutine, "__qualname__", "ApplicationCall")

    @property
    def cr_await(self):
        return getattr(self.coroutine, "cr_await", None)

    @property
    def cr_code(self):
        return getattr(self.coroutine, "cr_code", None)

    @property
    def cr_frame(self):
        return getattr(self.coroutine, "cr_frame", None)

    @property
    def cr_running(self):
        return getattr(self.coroutine, "cr_running", False)

    @property
    def cr_suspended(self):
        return getattr(self.coroutine, "cr_suspended", False)


cdef int _send_call(ApplicationCall self, PyObject* value, PyObject** result) except -1:
    return self.step(<object>value, result)


cdef PyObject* _next_call(ApplicationCall self) except? NULL:
    cdef PyObject* result = NULL
    if self.step(None, &result) == PYGEN_NEXT:
        return result
    return _stop(result)


def _raise(error):
    raise error


cdef object _call_application(ASGIExchange exchange):
    """The application's coroutine, or the iterator of any other awaitable that it returns."""
    returned = exchange.service._app(exchange.scope, duckfast_bind(_receive, exchange), exchange.bind_send())
    if PyCoro_CheckExact(returned):
        return returned
    method = getattr(type(returned), "__await__", None)
    if method is None:
        raise ApplicationError(
            f"an ASGI application returns an awaitable, this one returned {type(returned).__name__}: is it ASGI at all?")
    return method(returned)


@cython.final
cdef class FirstStep:
    """Eager tasks before 3.12: stands in for the loop while a task is made, and keeps the step that the loop would take soon."""

    @cython.binding(False)
    def get_debug(self):
        return False

    @cython.binding(False)
    def call_soon(self, step, context=None):
        self.step = step
        self.context = context

    cdef int take(self, object task, object loop, bint now) except -1:
        """Gives a new task its loop, and takes the step in the task's context: now, or as the loop would have."""
        step, context = self.step, self.context
        self.step = self.context = None
        duckfast_set_loop(<PyObject*>task, loop)
        if not now:
            loop.call_soon(step, context=context)
            return 0
        PyContext_Enter(context)
        try:
            step()
        finally:
            PyContext_Exit(context)
        return 0


cdef FirstStep _make_first_step(object loop):
    """None where tasks start eagerly by themselves, the loop wants to see every call, or a task is not what we take it for."""
    cdef FirstStep first = FirstStep.__new__(FirstStep)
    cdef object task
    if sys.version_info >= (3, 12) or getattr(_Task, "__module__", "") != "_asyncio" or loop.get_debug():
        return None
    task = _Task(_nothing(), loop=first)
    if duckfast_loop_of(<PyObject*>task) != <PyObject*>first or first.step is None or first.context is None:
        task._log_destroy_pending = False
        return None
    first.take(task, first, True)   # the loop itself is in the middle of another task
    duckfast_set_loop(<PyObject*>task, loop)
    return first if task.done() and task.get_loop() is loop else None


async def _nothing():
    pass


duckfast_set_steps(<PyTypeObject*>Waiting, <sendfunc>_send_waiting, <iternextfunc>_next_waiting)
duckfast_set_steps(<PyTypeObject*>ApplicationCall, <sendfunc>_send_call, <iternextfunc>_next_call)
# So that create_task(receive()), and the task of every request, take them for what they are.
for _kind in (Ready, Waiting, ApplicationCall):
    collections.abc.Coroutine.register(_kind)


# --- all requests -------------------------------------------------------------------------------------------------

cdef class Backlog:
    """The applications of one connection that go on after their responses."""


cdef class ASGIService(Service):
    """Runs one ASGI application on one event loop.

    state: the namespace the lifespan filled, None without one. attach() before the first connection, detach() at the end.
    """

    def __init__(self, app, loop, *, dict state=None, str root_path="", str root_path_mode="prefix",
                 bint raise_on_disconnect=True, Service websockets=None):
        self._app = app
        self._loop = loop
        self._create_future = loop.create_future
        self._raise_on_disconnect = raise_on_disconnect
        self._websockets = websockets
        # 2.4 promises that send() raises once the client left; frameworks stop listening for http.disconnect then.
        self._scopes = ScopeBuilder(root_path, root_path_mode, state, "2.5" if raise_on_disconnect else "2.3")
        self._eager = sys.version_info >= (3, 12)
        # A name given once spares the task from making its own.
        self._first_step = _make_first_step(loop)
        self._task_keywords = {"loop": self._first_step or loop, "name": "duckfast-request"}
        if self._eager:
            self._task_keywords["eager_start"] = True
        if not self._eager and getattr(_Task, "__module__", "") == "_asyncio":
            self._retired = []
        self._context = contextvars.copy_context()
        self._backlogs = {}
        self._unflushed = []
        self._starting = []

    def attach(self, Reactor reactor not None, Desk desk not None) -> None:
        """Lets the loop drive the reactor."""
        self.reactor = reactor
        self._desk = desk
        self._loop.add_reader(reactor.fileno(), self.tick)
        self.set_timer()

    def detach(self) -> None:
        """Takes the reactor off the loop."""
        self._loop.remove_reader(self.reactor.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @cython.binding(False)
    def tick(self):
        """Handles everything that is ready."""
        try:
            self.handle_ready()
        finally:
            if self.reactor.deadline_moved:
                self.set_timer()
        if self.reactor.open_connections == 0:
            self.release_retired()

    @cython.binding(False)
    def deadline(self):
        """The loop's timer: a deadline may have passed."""
        self._timer = None
        self.release_retired()
        try:
            self.handle_ready()
        finally:
            self.set_timer()

    cdef int handle_ready(self) except -1:
        """Reads all that arrived, calls the applications, and sends what they answer at once: in this order, each for all."""
        cdef Reactor reactor = self.reactor
        cdef int rounds = ROUNDS
        self._ticking = True
        try:
            reactor.tick(self._desk)
            reactor.sleeping = False
            while len(self._starting) != 0 or len(self._unflushed) != 0:
                self.start_all()
                self.flush_all()
                while rounds != 0 and reactor.ready_head is not None and len(self._starting) == 0:
                    rounds -= 1
                    reactor.poller.look()            # who comes new is before those ...
                    reactor.handle_all(self._desk)   # ... whose requests were behind others which have been answered
        finally:
            self._ticking = False
            reactor.sleep()
            if len(self._starting) != 0 or len(self._unflushed) != 0:
                reactor.poller.wake()   # something broke off: the rest has its turn in a moment
        return 0

    cdef int flush_later(self, Channel channel) except -1:
        """Small pieces of a body leave together, at the latest when the application has given the loop its turn."""
        if channel.flush_due:
            return 0
        self._unflushed.append(channel)
        channel.flush_due = True
        if not self._ticking and not self._flush_called:
            self._loop.call_soon(self.flush_all, context=self._context)
            self._flush_called = True
        return 0

    @cython.binding(False)
    def flush_all(self):
        """Sends what flush_later() put off."""
        cdef Channel channel
        cdef list unflushed = self._unflushed
        self._flush_called = False
        try:
            self._unflushed = []
        except MemoryError:
            self.reactor.poller.wake()   # the tick will do it
            raise
        for channel in unflushed:
            if channel.flush_due:   # it may have been flushed with the end of its response
                try:
                    channel.flush()
                except Exception:
                    channel.give_up()

    cdef int set_timer(self) except -1:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            seconds = self.reactor.seconds_to_deadline()
            if seconds is not None:
                self._timer = self._loop.call_later(seconds, self.deadline)
        except BaseException:
            # Without a timer no deadline would ever pass: the next tick makes one.
            self.reactor.deadline_moved = True
            self.reactor.poller.wake()
            raise
        return 0

    cdef Exchange new_exchange(self, Channel channel, Head* head):
        cdef ASGIExchange exchange
        if head.upgrade_websocket and self._websockets is not None:
            exchange = <ASGIExchange>self._websockets.new_exchange(channel, head)
        else:
            exchange = ASGIExchange.__new__(ASGIExchange)
        exchange.service = self
        return exchange

    cdef int start(self, ASGIExchange exchange) except -1:
        """Starts the application, now or when earlier ones of this connection have ended."""
        cdef Backlog backlog
        exchange.started = True
        if len(self._backlogs) != 0:
            backlog = self._backlogs.get(exchange.channel)
            if backlog is not None and backlog.running >= MOST_BACKGROUND:
                backlog.held = exchange
                return 0
        return self.start_when_admitted(exchange)

    cdef int start_when_admitted(self, ASGIExchange exchange) except -1:
        if self.reactor.gated and not self.reactor.admit(exchange):
            return 0
        return self.start_task(exchange)

    cdef int start_task(self, ASGIExchange exchange) except -1:
        try:
            if self._ticking:
                self._starting.append(exchange)
                return 0
            return self.start_now(exchange)
        except BaseException:
            self.leave_unstarted(exchange)
            raise

    cdef int leave_unstarted(self, ASGIExchange exchange) except -1:
        """Its application has not been called and never will be: others may have its place."""
        if exchange.place == INSIDE:
            self.reactor.leave(exchange)
        return 0

    cdef int start_all(self) except -1:
        """Calls the applications of the requests that this tick has read.

        Responses of several leave together after their first steps: each code runs many times while it is in the cache, and
        a peer on this machine is woken once. They wait for HOLD at most, and not at all when a step has been long lately:
        one that computes must not hold back what others, or it itself, have answered.
        """
        cdef ASGIExchange exchange
        cdef list starting
        cdef int64_t time = fine_now()
        cdef int64_t held_since = time
        cdef int64_t before
        cdef Py_ssize_t taken
        while len(self._starting) != 0:
            starting = self._starting
            self._starting = []
            taken = 0
            self._together = len(starting) > 1 and time >= self._prompt_until
            for exchange in starting:
                taken += 1
                try:
                    if exchange.channel is None:
                        self.abandon(exchange)
                    else:
                        self.start_now(exchange)
                except BaseException as error:
                    self.give_up(exchange)
                    if not isinstance(error, Exception):   # a signal's handler raised it: the rest is for the next tick
                        self._starting = starting[taken:] + self._starting
                        raise
                before = time
                time = fine_now()
                if time - before > LONG_STEP:
                    self._prompt_until = time + PROMPT
                    self._together = False
                if time - held_since > HOLD:
                    held_since = time
                    self.flush_all()
        self._together = False
        return 0

    cdef int abandon(self, ASGIExchange exchange) except -1:
        """Nobody is there any more to be answered: the client left, or broke a rule in its body, before the application was called."""
        self.leave_unstarted(exchange)
        return exchange.application_ended(None)

    cdef int start_now(self, ASGIExchange exchange) except -1:
        # No context is given, so the task copies the current one. That is the loop callback's own, which no application ever
        # writes to: exchanges begin in tick() only, and an ended backlog starts the next through the loop.
        cdef ApplicationCall call = ApplicationCall.__new__(ApplicationCall)
        call.exchange = exchange
        call.next = self._first
        if call.next is not None:
            call.next.previous = call
        self._first = call
        try:
            task = self.take_task()
            if task is not None:
                (<PyTypeObject*>_Task).tp_init(task, (call,), self._task_keywords)
            else:
                task = PyObject_Call(_Task, (call,), self._task_keywords)
            if call.exchange is not None:   # else it ran to its end in the first step
                call.task = task
                if self._first_step is not None:
                    self._first_step.take(task, self._loop, self._ticking)
        except BaseException:
            call.drop()
            raise
        return 0

    cdef void release_retired(self) noexcept:
        """Lets go of finished tasks, and with them of the contexts of their requests: at every deadline, and when all is idle."""
        if self._retired is not None:
            self._retired.clear()

    cdef object take_task(self):
        """A finished task to begin anew, before 3.12: there, entering one in asyncio's weak set and leaving it again costs a
        tenth of a small request. Only one that nobody can tell from a new one: no reference but ours, no weak one but the
        set's, no attributes."""
        if self._retired is None or len(self._retired) == 0:
            return None
        task = self._retired.pop()
        return task if duckfast_is_ours_alone(<PyObject*>task) else None

    cdef int forget(self, ApplicationCall call) except -1:
        if call.previous is not None:
            call.previous.next = call.next
        else:
            self._first = call.next
        if call.next is not None:
            call.next.previous = call.previous
        call.previous = call.next = None
        return 0

    @property
    def running(self) -> list:
        """The tasks of applications that have not ended."""
        tasks = []
        call = self._first
        while call is not None:
            if call.task is not None:
                tasks.append(call.task)
            call = call.next
        return tasks

    def in_flight(self) -> list:
        """(method, path, seconds since it began) of each application that has not ended. From any thread that holds the GIL."""
        cdef list exchanges = self.reactor.exchanges()
        cdef ApplicationCall call = self._first
        while call is not None:   # the rest go on after their responses
            if call.exchange is not None and call.exchange.channel is None:
                exchanges.append(call.exchange)
            call = call.next
        return describe_all(exchanges)

    cdef int note_background(self, Channel channel) except -1:
        cdef Backlog backlog = self._backlogs.get(channel)
        if backlog is None:
            backlog = self._backlogs[channel] = Backlog.__new__(Backlog)
        backlog.running += 1
        return 0

    cdef int end_background(self, Channel channel) except -1:
        cdef Backlog backlog = self._backlogs[channel]
        backlog.running -= 1
        if backlog.held is not None:
            held = backlog.held
            backlog.held = None
            self._loop.call_soon(self.start_held, held, context=self._context)
        if backlog.running == 0:
            del self._backlogs[channel]
        return 0

    def start_held(self, ASGIExchange exchange):
        if exchange.channel is not None:
            try:
                self.start_when_admitted(exchange)
            except Exception:
                self.give_up(exchange)

    cdef int give_up(self, ASGIExchange exchange) except -1:
        """Ends a request whose application could not be called."""
        cdef Channel channel = exchange.channel
        if channel is not None:
            channel.give_up()
        return self.leave_unstarted(exchange)

    def complain_of_result(self, value) -> None:
        """Tells once that an application returned something: usually a WSGI or half-converted one."""
        if not self._complained:
            self._complained = True
            _logger.error("the ASGI application returned %.200r; it must return None, and its value is ignored", value)


# --- one request --------------------------------------------------------------------------------------------------

cdef class ASGIExchange(Exchange):
    """One request and its response. Python sees receive() and send()."""

    def __cinit__(self):
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_EXCHANGE, 1)

    def __dealloc__(self):
        free_buffer(&self.rest)
        free_buffer(&self.trailers)
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_EXCHANGE, -1)

    # --- what the channel tells

    cdef int begin(self, Desk desk) except -1:
        cdef Head* head = desk.head
        cdef int64_t length = head.content_length
        self.scope = self.service._scopes.build(self.channel, head)
        self.http_1_0 = head.minor == 0
        self.te_trailers = head.te_trailers
        if length <= 0 and not head.chunked:
            self.body = BODY_WHOLE
            return 0
        # A small body that came with its head is told in a moment: starting after it saves the application a wait.
        if 0 < length < <int64_t>HIGH_WATER and <int64_t>self.channel.connection.unread() >= length:
            return 0
        return self.service.start(self)

    cdef int body_data(self, const char* data, size_t size) except -1:
        if self.first is None:
            self.first = PyBytes_FromStringAndSize(data, size)
        elif append(&self.rest, data, size) < 0:
            raise MemoryError
        return wake(self.receivers)

    cdef int body_end(self) except -1:
        self.body = BODY_WHOLE
        if not self.started:
            return self.service.start(self)
        return wake(self.receivers)

    cdef int proceed(self, Desk desk) except -1:
        return self.service.start_task(self)

    cdef bint wants_body(self) noexcept:
        if self.place == IN_LINE or self.place == ITS_TURN:
            return False
        if self.first is None or PyBytes_GET_SIZE(self.first) + self.rest.size - self.rest.start < HIGH_WATER:
            return True
        self.held_back = True
        return False

    cdef int disconnected(self) except -1:
        self.channel = None
        if self.response != RESPONDED:
            self.gone = True
            if self.body == BODY_ARRIVING:
                self._drop_body()   # a cut body is never handed over as if it were whole
        wake(self.receivers)
        return wake(self.senders)

    cdef int half_closed(self) except -1:
        self.told = True
        return wake(self.receivers)

    cdef int drained(self) except -1:
        return wake(self.senders)

    cdef int draining(self) except -1:
        # What listens for the end of an open stream hears it now.
        return wake(self.receivers)

    cdef int overdue(self) except -1:
        cdef ApplicationCall call = self.service._first
        while call is not None and call.exchange is not self:
            call = call.next
        if call is not None:
            call.task.cancel()
        return 0

    cdef dict facts(self):
        return self.scope

    cdef tuple describe(self):
        cdef dict scope = self.scope
        if scope is None or not self.started or self.place == IN_LINE or self.place == ITS_TURN:
            return None
        return scope.get("method"), scope.get("path")

    # --- receive

    @cython.binding(False)
    def receive(self):
        """The next message from the client: http.request or http.disconnect."""
        cdef Waiting waiting = Waiting.__new__(Waiting)
        waiting.exchange = self
        waiting.for_message = True
        return waiting

    cdef dict take_message(self):
        if self.response == RESPONDED or self.gone and self.body != BODY_WHOLE:
            return {"type": "http.disconnect"}
        if self.body == BODY_DELIVERED:
            # The end of the engine concerns those whose response has begun and may have no end. The others are still to answer:
            # an application that stops its work at http.disconnect (Django) would leave its client without an answer.
            if self.told or self.service.reactor.retiring and self.response != AWAIT_START:
                return {"type": "http.disconnect"}
            return None
        if self.body == BODY_WHOLE:
            self.body = BODY_DELIVERED
            return {"type": "http.request", "body": self._take_body(), "more_body": False}
        if self.first is None:
            self.channel.ask_body()
            return None
        message = {"type": "http.request", "body": self._take_body(), "more_body": True}
        if self.held_back:
            self.held_back = False
            self.channel.resume_body(self.service._desk)
        return message

    cdef bytes _take_body(self):
        cdef bytes first = self.first
        cdef bytes body
        cdef size_t size, left
        if first is None:
            return b""
        self.first = None
        left = self.rest.size - self.rest.start
        if left == 0:
            return first
        size = PyBytes_GET_SIZE(first)
        body = PyBytes_FromStringAndSize(NULL, size + left)
        memcpy(PyBytes_AS_STRING(body), PyBytes_AS_STRING(first), size)
        memcpy(PyBytes_AS_STRING(body) + size, self.rest.data + self.rest.start, left)
        self.rest.start = self.rest.size = 0
        return body

    cdef void _drop_body(self) noexcept:
        self.first = None
        free_buffer(&self.rest)

    # --- send

    @cython.binding(False)
    def send(self, message):
        """Takes a message of the response. Raises ApplicationError when it breaks the contract, ClientDisconnected when
        nobody is there to read it; returns an awaitable."""
        cdef dict fields
        if type(message) is dict:
            fields = message
        elif isinstance(message, collections.abc.Mapping):
            fields = dict(message)
        else:
            raise ApplicationError(f"send() takes a dict, got {type(message).__name__}")
        kind = fields.get("type")
        if kind == "http.response.body":
            return self._send_body(fields)
        if kind == "http.response.start":
            return self._send_start(fields)
        if kind == "http.response.pathsend":
            return self._send_path(fields)
        if kind == "http.response.zerocopysend":
            return self._send_zero_copy(fields)
        if kind == "http.response.trailers":
            return self._send_trailers(fields)
        if kind == "http.response.early_hint":
            return self._send_early_hint(fields)
        raise ApplicationError(f"send() of an unknown message type {kind!r} on an HTTP request")

    cdef object _late(self):
        """The response is over. ASGI: messages after its end are ignored; after the client left an OSError is due (2.4)."""
        if self.response != RESPONDED and self.service._raise_on_disconnect:
            raise ClientDisconnected("the client has left")
        return READY

    def take(self, int status=0, ClientSocket into=None) -> ClientSocket:
        """Takes the connection, open, out of the server, for an app that answers on it by itself; on the loop.

        What is sent here is ignored then. status: what the access log is told (101: another protocol); 0: there is no line.
        Raises OSError when the response has begun, or the client has left.
        """
        cdef ClientSocket client = into if into is not None else ClientSocket.__new__(ClientSocket)
        cdef Channel channel = self.channel
        if channel is None:
            raise OSError(errno.ENOTCONN, "the request is over, or the client has left")
        channel.take(client, status)
        self.taken = True
        self.response = RESPONDED
        self.served_by = channel
        wake(self.receivers)
        return client

    cdef bint must_wait(self, object ticket) except -1:
        if self.channel is None:
            self._late()
            return False
        return self.channel.unsent()

    cdef int withdraw(self, object ticket) except -1:
        return 0

    cdef object bind_send(self):
        return duckfast_bind(_send, self)

    cdef object _send_start(self, dict message):
        cdef Channel channel = self.channel
        cdef WriteError error
        cdef int overflow = 0
        cdef long status
        if self.response != AWAIT_START or self.starting:
            if self.taken:
                return READY
            raise ApplicationError("http.response.start was sent twice")
        if channel is None:
            return self._late()
        given = message.get("status")
        if not isinstance(given, int):
            raise ApplicationError(f"http.response.start needs an int as status, got {given!r}")
        status = PyLong_AsLongAndOverflow(given, &overflow)
        error = channel.start_head(<int>status if 0 <= status <= 999 else 0, NULL, 0)
        if error != WRITE_OK:
            if error == NO_MEMORY:
                raise MemoryError
            raise ApplicationError(f"http.response.start: {describe(error)}: status {given!r}")
        # type, status and headers are all that most have: no need to look for more.
        self.announced_trailers = len(message) > 3 and message.get("trailers", False)
        channel.response.trailers = self.announced_trailers and self.te_trailers
        self.starting = True   # the headers may be code of the application's
        try:
            self._write_fields(message.get("headers", ()))
        except BaseException:
            if self.channel is not None:
                channel.drop_head()
            raise
        finally:
            self.starting = False
        if self.channel is None:
            return self._late()
        self.response = AWAIT_BODY
        if self.receivers is not None and channel.reactor.retiring:
            wake(self.receivers)
        return READY

    cdef int _write_fields(self, object fields) except -1:
        cdef Channel channel = self.channel
        cdef WriteError error
        for item in fields:
            name, value = read_field(item)
            if self.channel is None:
                return 0   # the code that made them has ended the connection
            error = channel.add_field(
                PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
            if error != WRITE_OK:
                raise ApplicationError(f"http.response.start: {describe(error)}: {name!r}: {value!r}")
        return 0

    cdef object _send_body(self, dict message):
        cdef Channel channel = self.channel
        cdef size_t size
        cdef Sent sent
        cdef bint more_body
        body = message.get("body", b"")
        if not PyBytes_CheckExact(body):
            body = read_bytes(body)
        more_body = len(message) > 2 and message.get("more_body", False)
        if channel is None:
            return self._late()
        size = PyBytes_GET_SIZE(body)
        self._open_body("http.response.body", size, more_body)
        if size != 0:
            sent = channel.send_body(body, PyBytes_AS_STRING(body), size)
            if sent == SENT_TOO_LONG:
                channel.flush()
                raise ApplicationError("the response is longer than its Content-Length: what is over was not sent")
        if not more_body:
            return self._end_body()
        if channel.tail is None and not channel.unsent() and channel.out.size < GATHER:
            self.service.flush_later(channel)
            return READY
        return self._flush()

    cdef int _open_body(self, str kind, int64_t size, bint more_body) except -1:
        """The head is final now: the first piece of body is here, `size` bytes."""
        cdef Channel channel = self.channel
        cdef WriteError error
        cdef int64_t length
        if self.response == SENDING_BODY:
            if channel.file is not None:
                raise ApplicationError(f"{kind} came while a file was being sent: await its send() first")
            return 0
        if self.response == AWAIT_START:
            raise ApplicationError(f"{kind} came before http.response.start")
        if self.response == AWAIT_TRAILERS:
            raise ApplicationError(f"{kind} came after the body's end")
        length = channel.response.content_length
        if 0 <= length < size and not channel.connection.head_request:
            channel.drop_head()   # nothing has left: it can still become a clean 500
            self.response = AWAIT_START
            raise ApplicationError(f"the body of {size} bytes is longer than the Content-Length of {length}")
        if more_body or self.announced_trailers and self.te_trailers:
            size = -1
        error = channel.end_head(size, self.announced_trailers and self.te_trailers)
        if error == NO_MEMORY:
            raise MemoryError
        if error != WRITE_OK:
            channel.drop_head()
            self.response = AWAIT_START
            raise ApplicationError(f"http.response.start: {describe(error)}")
        self.response = SENDING_BODY
        return 0

    cdef object _flush(self):
        """To the kernel. Whoever sends faster than the client reads waits here."""
        cdef Channel channel = self.channel
        cdef Waiting waiting
        channel.flush()
        if not channel.unsent():
            return READY
        waiting = Waiting.__new__(Waiting)
        waiting.exchange = self
        return waiting

    cdef object _end_body(self):
        cdef Channel channel = self.channel
        # RFC 9112 6.5: trailers exist in chunked bodies only.
        if self.announced_trailers and self.te_trailers and channel.connection.framing == SEND_CHUNKED:
            self.response = AWAIT_TRAILERS
            return self._flush()
        return self._end_response()

    cdef object _end_response(self):
        cdef Channel channel = self.channel
        cdef Finished finished
        self.response = RESPONDED
        self.served_by = channel
        finished = channel.end_body(self.trailers.data, self.trailers.size)
        if self.service._together:
            self.service.flush_later(channel)
        else:
            channel.flush()
        self._drop_body()
        wake(self.receivers)
        wake(self.senders)
        if finished == RESPONSE_SHORT:
            raise ApplicationError("the response is shorter than its Content-Length: the connection was closed")
        return READY

    # --- extensions

    cdef object _send_path(self, dict message):
        cdef OpenFile file
        cdef int64_t size
        path = message.get("path")
        if not isinstance(path, (str, os.PathLike)):
            raise ApplicationError(f"http.response.pathsend needs a str as path, got {path!r}")
        if self.channel is None:
            return self._late()
        if self.response != AWAIT_BODY:
            raise ApplicationError("http.response.pathsend follows http.response.start and stands for the whole body")
        file = OpenFile.__new__(OpenFile)
        # Not blocking, or a FIFO would stop the loop here.
        file.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        facts = os.fstat(file.fd)
        if not stat.S_ISREG(facts.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", path)
        size = facts.st_size
        if 0 <= self.channel.response.content_length < size:
            size = self.channel.response.content_length
        return self._send_file(file, 0, size, False)

    cdef object _send_zero_copy(self, dict message):
        cdef OpenFile file
        cdef int64_t offset, size
        source = message.get("file")
        given = message.get("offset")
        count = message.get("count")
        if self.channel is None:
            return self._late()
        file = OpenFile.__new__(OpenFile)
        file.fd = os.dup(_descriptor(source))
        facts = os.fstat(file.fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ApplicationError("http.response.zerocopysend needs a regular file")
        offset = _position(source) if given is None else _index("offset", given)
        size = max(0, facts.st_size - offset)
        if count is not None:
            size = min(size, _index("count", count))
        outcome = self._send_file(file, offset, size, message.get("more_body", False))
        if given is None:
            _move(source, offset + size)   # as os.sendfile() does without an offset
        return outcome

    cdef object _send_file(self, OpenFile file, int64_t offset, int64_t size, bint more_body):
        cdef Channel channel = self.channel
        self._open_body("a file", size, more_body)
        if channel.tail is not None:
            raise ApplicationError("a file was sent while an earlier body was waiting: await its send() first")
        if channel.send_file(file, file.fd, offset, size) == SENT_TOO_LONG:
            channel.flush()
            raise ApplicationError("the response is longer than its Content-Length: what is over was not sent")
        return self._flush() if more_body else self._end_body()

    cdef object _send_trailers(self, dict message):
        cdef ResponseHead head
        cdef WriteError error
        if self.channel is None:
            return self._late()
        if self.response != AWAIT_TRAILERS:
            if self.announced_trailers:
                raise ApplicationError("http.response.trailers came before the body's end")
            raise ApplicationError("http.response.trailers came, but http.response.start did not announce them")
        memset(&head, 0, sizeof(head))
        head.content_length = -1
        for item in message.get("headers", ()):
            name, value = read_field(item)
            error = write_field(
                &self.trailers, &head, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name),
                PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
            if error != WRITE_OK:
                raise ApplicationError(f"http.response.trailers: {describe(error)}: {name!r}: {value!r}")
        return READY if message.get("more_trailers", False) else self._end_response()

    cdef object _send_early_hint(self, dict message):
        cdef ResponseHead head
        cdef Buffer lines
        cdef WriteError error
        cdef list links = []
        if self.channel is None:
            return self._late()
        if self.response > AWAIT_BODY:
            raise ApplicationError("http.response.early_hint comes before the body")
        for link in message.get("links", ()):   # no comprehension: Cython 3.3's lets go of an item twice when its list cannot grow
            links.append(read_bytes(link))
        if self.http_1_0 or not links:
            return READY
        memset(&lines, 0, sizeof(lines))
        try:
            if write_interim(&lines, &head, 103) != WRITE_OK:
                raise MemoryError
            for link in links:
                error = write_field(&lines, &head, b"link", 4, PyBytes_AS_STRING(link), PyBytes_GET_SIZE(link))
                if error != WRITE_OK:
                    raise ApplicationError(f"http.response.early_hint: {describe(error)}: {link!r}")
            if append(&lines, b"\r\n", 2) < 0:
                raise MemoryError
            self.channel.send_interim(lines.data, lines.size)
        finally:
            free_buffer(&lines)
        return READY

    # --- the end of the application

    cdef int application_ended(self, object error) except -1:
        """Answers for an application that did not, tells what went wrong, and lets go of everything."""
        cdef dict scope
        cdef Channel channel = self.channel
        try:
            if error is not None or self.response != RESPONDED and not self.gone:
                self._answer_for(error)
        except Exception:
            if channel is None:
                raise
            channel.give_up()   # nobody else would end it
        finally:
            scope = self.scope
            self.scope = None
            self.service._scopes.take_back(scope)
            self.receivers = self.senders = None
            self._drop_body()
        return 0

    cdef int _answer_for(self, object error) except -1:
        cdef Channel channel = self.channel
        cdef Response response = self.response
        cdef bint cancelled = isinstance(error, asyncio.CancelledError)
        if error is None:
            if response <= AWAIT_BODY:
                self._complain("the application returned without a response to %s %r", None)
            elif not self.told and not self.service.reactor.retiring:   # a stream that heard of its end may stop where it is
                self._complain("the application returned in the middle of its response to %s %r", None)
        elif not cancelled and not (self.gone and is_of_disconnect(error)):
            self._complain("the application failed on %s %r", error)
        if channel is None:
            return 0
        self.response = RESPONDED
        self.channel = None
        if response <= AWAIT_BODY:
            channel.answer_error(503 if cancelled else 500, b"Service Unavailable" if cancelled else b"Internal Server Error")
        else:
            channel.break_off()
        return 0

    def _complain(self, text, error):
        self.service.reactor.counters.app_errors += 1
        _logger.error(text, self.scope.get("method"), self.scope.get("path"), exc_info=error)


cdef object bind_method(object method, object self):
    return duckfast_bind(method, self)


cdef object _receive = ASGIExchange.__dict__["receive"]
cdef object _send = ASGIExchange.__dict__["send"]


# --- reading an application's messages ----------------------------------------------------------------------------

cdef tuple read_field(object item):
    """A header or trailer: any iterable of two bytes objects."""
    cdef tuple pair
    if type(item) is tuple:
        pair = item
    else:
        try:
            pair = tuple(item)
        except TypeError:
            raise ApplicationError(f"a header is a pair of bytes, got {item!r}") from None
    if len(pair) != 2:
        raise ApplicationError(f"a header is a pair of bytes, got {item!r}")
    if not PyBytes_CheckExact(pair[0]) or not PyBytes_CheckExact(pair[1]):
        return read_bytes(pair[0]), read_bytes(pair[1])
    return pair


cdef bytes read_bytes(object value):
    """A copy of any bytes-like value; the application may change its own afterwards."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise ApplicationError(f"bytes are needed, got {type(value).__name__}: {value!r:.100}")


cdef int64_t _index(str name, object value) except -1:
    if not isinstance(value, int) or value < 0:
        raise ApplicationError(f"http.response.zerocopysend needs an int from 0 up as {name}, got {value!r}")
    return value


cdef int _descriptor(object source) except -1:
    if isinstance(source, int):
        return source
    fileno = getattr(source, "fileno", None)
    if fileno is None:
        raise ApplicationError(f"http.response.zerocopysend needs a file with a descriptor, got {type(source).__name__}")
    return fileno()


cdef int64_t _position(object source) except -1:
    return os.lseek(source, 0, os.SEEK_CUR) if isinstance(source, int) else source.tell()


cdef int _move(object source, int64_t position) except -1:
    if isinstance(source, int):
        os.lseek(source, position, os.SEEK_SET)
    else:
        source.seek(position)
    return 0


cdef bint is_of_disconnect(object error) except -1:
    """Whether ClientDisconnected is what led to this exception: frameworks wrap it in their own, task groups in a group."""
    seen = set()
    found = [error]
    while found:
        error = found.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        if isinstance(error, ClientDisconnected):
            return True
        if isinstance(error, BaseExceptionGroup):
            found.extend(error.exceptions)
        found += (error.__cause__, error.__context__)
    return False

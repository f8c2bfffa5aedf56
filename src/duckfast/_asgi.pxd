# ASGI exchanges: an application's receive() and send() over a channel, and the task that runs it.
cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from duckfast._reactor cimport Channel, Desk, Exchange, Reactor, Service
from duckfast._scope cimport ScopeBuilder
from duckfast._transport cimport OpenFile
from duckfast._writer cimport Buffer


cdef enum RequestBody:
    BODY_ARRIVING     # more may come
    BODY_WHOLE        # all of it is here
    BODY_DELIVERED    # the application has the message that says more_body False


cdef enum Response:
    AWAIT_START       # nothing was sent
    AWAIT_BODY        # the head is written but can still be taken back
    SENDING_BODY
    AWAIT_TRAILERS    # the body is whole, announced trailers are not
    RESPONDED


cdef class ASGIExchange


@cython.final
cdef class Ready:
    pass


cdef Ready READY     # what send() returns when there is nothing to wait for


@cython.final
cdef class Waiting:
    cdef ASGIExchange exchange
    cdef object future         # slept on; None: not asleep
    cdef bint for_message      # receive()
    cdef object ticket         # what this send() waits for, as must_wait() knows it; None: that everything has left

    cdef int step(self, PyObject** result) except -1
    cdef object sleep(self)
    cdef int leave(self) except -1


@cython.final
cdef class ApplicationCall:
    cdef ASGIExchange exchange            # None once the application has ended
    cdef object coroutine                 # None before the first step
    cdef object task                      # None in the first step of an eager task
    cdef ApplicationCall previous, next   # in the service's list

    cdef int step(self, object value, PyObject** result) except -1
    cdef int returned(self, object value) except -1
    cdef bint failed(self, object error) except -1
    cdef int end(self, object error) except -1
    cdef int drop(self) except -1


@cython.final
cdef class FirstStep:
    cdef object step              # None but between the making of a task and its first step
    cdef object context

    cdef int take(self, object task, object loop, bint now) except -1


cdef class Backlog:
    # Of one connection whose applications went on after their responses.
    cdef int running              # how many of them
    cdef ASGIExchange held        # the next request, waiting until one of them ends; None: none waits


cdef class ASGIService(Service):
    # per process
    cdef object _app
    cdef ScopeBuilder _scopes
    cdef bint _raise_on_disconnect
    cdef bint _eager              # tasks take their first step at once by themselves: 3.12 and later
    cdef FirstStep _first_step    # how they do before; None: not at all
    cdef dict _task_keywords
    cdef object _loop
    cdef object _create_future
    cdef object _context          # what held requests start in
    cdef bint _complained         # about what an application returned
    cdef Service _websockets      # makes their exchanges, which are ASGIExchanges too; None: they are ordinary requests

    # the engine's clockwork
    cdef readonly Reactor reactor
    cdef Desk _desk
    cdef object _timer            # of the loop, for the reactor's next deadline; None: none is set

    # changing
    cdef ApplicationCall _first   # of those that have not ended, newest first: the loop itself holds their tasks only weakly
    cdef list _retired            # finished tasks that may begin anew; None: not done on this interpreter
    cdef dict _backlogs           # Channel -> Backlog
    cdef list _unflushed          # channels whose bytes leave at the end of this tick, or in the loop's next iteration
    cdef list _starting           # exchanges whose applications are called once all that arrived is read
    cdef bint _ticking
    cdef bint _together           # responses that end now leave after the first steps of the others
    cdef int64_t _prompt_until    # time; before it, no response waits for another
    cdef bint _flush_called       # the loop will call flush_all()

    cdef int start(self, ASGIExchange exchange) except -1
    cdef int start_when_admitted(self, ASGIExchange exchange) except -1
    cdef int start_task(self, ASGIExchange exchange) except -1
    cdef int start_all(self) except -1
    cdef int abandon(self, ASGIExchange exchange) except -1
    cdef int start_now(self, ASGIExchange exchange) except -1
    cdef int leave_unstarted(self, ASGIExchange exchange) except -1
    cdef int give_up(self, ASGIExchange exchange) except -1
    cdef object take_task(self)
    cdef void release_retired(self) noexcept
    cdef int forget(self, ApplicationCall call) except -1
    cdef int handle_ready(self) except -1
    cdef int set_timer(self) except -1
    cdef int flush_later(self, Channel channel) except -1
    cdef int note_background(self, Channel channel) except -1
    cdef int end_background(self, Channel channel) except -1


cdef class ASGIExchange(Exchange):
    # per request
    cdef ASGIService service
    cdef dict scope               # None once the application has ended
    cdef bint http_1_0
    cdef bint te_trailers         # the peer reads trailers
    cdef bint started             # the application has been called, or waits for its turn
    cdef bint gone                # the peer left before the response was complete
    cdef bint taken               # the application has taken the connection: what it sends here is nobody's
    cdef bint told                # the peer sent FIN: receive() says so once the body is delivered

    # the request's body
    cdef RequestBody body
    cdef bint held_back           # reading has stopped until the application takes what is here
    cdef bytes first              # the first piece that waits; None: nothing waits
    cdef Buffer rest              # owned: the pieces behind it
    cdef list receivers           # futures that calls of receive() sleep on; None: there was none yet

    # the response
    cdef Response response
    cdef bint starting            # its headers are being read
    cdef bint announced_trailers
    cdef Buffer trailers          # owned: field lines
    cdef list senders             # futures that calls of send() sleep on; None: there was none yet
    cdef Channel served_by        # the channel, once it has let go of us; kept until the application ends
    cdef bint in_background       # counted against that connection

    # what awaitables ask
    cdef dict take_message(self)            # None: nothing yet
    cdef bint must_wait(self, object ticket) except -1   # a send() has to wait for the kernel
    cdef int withdraw(self, object ticket) except -1     # it does not any more
    cdef object bind_send(self)

    cdef int application_ended(self, object error) except -1

    cdef bytes _take_body(self)
    cdef void _drop_body(self) noexcept
    cdef object _late(self)
    cdef object _send_start(self, dict message)
    cdef int _write_fields(self, object fields) except -1
    cdef object _send_body(self, dict message)
    cdef object _send_path(self, dict message)
    cdef object _send_zero_copy(self, dict message)
    cdef object _send_file(self, OpenFile file, int64_t offset, int64_t size, bint more_body)
    cdef object _send_trailers(self, dict message)
    cdef object _send_early_hint(self, dict message)
    cdef int _open_body(self, str kind, int64_t size, bint more_body) except -1
    cdef object _flush(self)
    cdef object _end_body(self)
    cdef object _end_response(self)
    cdef int _answer_for(self, object error) except -1


cdef object bind_method(object method, object self)   # a bound method without the search for its name
cdef int wake(list waiters) except -1
cdef tuple read_field(object item)      # a header or trailer: any iterable of two bytes objects
cdef bytes read_bytes(object value)     # a copy of any bytes-like value; the application may change its own afterwards
cdef bint is_of_disconnect(object error) except -1

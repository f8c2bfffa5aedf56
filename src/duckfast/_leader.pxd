# Which of a reactor's threads polls, and who takes over when it is stuck in the app.
from libc.stdint cimport int64_t

from duckfast._reactor cimport Desk, Reactor


cdef class Crew:
    cdef readonly Reactor reactor
    cdef Desk leader                # the thread that polls, by its desk; None: nobody. Changed with the GIL only.
    cdef void* _state               # the C side: what is read and written without the GIL
    cdef readonly int limit         # threads at most
    cdef readonly int threads       # threads now
    cdef bint enlisted              # its thread is somebody's own, and cannot be replaced
    cdef int staying                # threads that do not leave for lack of work
    cdef bint watched               # somebody is awake while the leader is in the app
    cdef bint retiring              # asked to
    cdef bint stopping              # asked to
    cdef bint parting               # the deadline has passed: only connections that have ended are waited for
    cdef bint finished
    cdef bint short                 # a thread was wanted, and there was no memory for it
    cdef int shortages              # of memory while leading, since the leader last waited
    cdef int64_t deadline           # of the retirement or the graceful stop
    cdef double blocked             # moving average: how often an app call outlives the watch's patience, 0 to 1
    cdef list desks                 # of the threads
    cdef object _spawn
    cdef object _drained
    cdef readonly object failure    # SystemExit or KeyboardInterrupt out of the app

    cdef int enter_app(self, Desk desk) except -1     # around every stretch of app code
    cdef bint leave_app(self, Desk desk) except -1    # whether the call was a long one
    cdef bint may_hold_back(self, Desk desk, int fd) noexcept   # what is sent to fd now: the watch pushes it if the app is slow to go on
    cdef int release(self, Desk desk) except -1       # the app on this thread is in no request any more: it may stay for hours
    cdef int give_up(self, object failure) except -1  # the app wants the process to end
    cdef int _lead(self, Desk desk) except -1
    cdef int _keep_up(self, Desk desk, int64_t time) except -1
    cdef int _go_on_ending(self, Desk desk, int64_t time) except -1
    cdef int _wait(self, Desk desk) except -1
    cdef int _stand_in(self) except -1
    cdef int _bear_shortage(self, object error) except -1

"""Adaptive leadership: the thread that polls also runs the app, and another takes over only when it stays away too long.

Knows a reactor and its threads; nothing of WSGI. One thread is the leader: it polls, reads, parses and runs the app. One
follower is on watch, asleep without the GIL: it looks every WATCH nanoseconds, while there is traffic, whether the leader has
moved on. If it is still in the same call, the watch takes the leadership with whatever is ready, and the old leader joins the
followers once its response is finished. When calls are found to block as a rule, the leadership is handed over before the call.

Who may change what: `leader` changes with the GIL held; the C state below is read and written without it, under its own lock
or as single atomic words.
"""

import logging

from libc.stdint cimport INT64_MAX, uint32_t, uint64_t

from duckfast._poller cimport now
from duckfast._reactor cimport Channel, describe_all

cdef extern from *:
    """
    #include <errno.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <stdlib.h>
    #include <sys/socket.h>
    #include <time.h>

    #define DF_WATCH 400000            /* ns between two looks of the watch while calls block now and then */
    #define DF_CALM_WATCH 2000000      /* ns between two looks while none has for a while: a look costs about 4 us */
    #define DF_CALM_LOOKS 500          /* looks without a blocked call until then: 200 ms */
    #define DF_QUIET_LOOKS 5           /* looks without a call until the watch sleeps for good */
    #define DF_SPARE_TIME 60           /* s a spare thread stays without work; granian 30 s */

    enum { DF_LEAD, DF_STUCK, DF_RETIRE, DF_STOP };

    typedef struct {
        pthread_mutex_t lock;
        pthread_cond_t watch;          /* the one on watch */
        pthread_cond_t spare;          /* the other followers */
        uint64_t sequence;             /* app calls of leaders so far */
        int in_app;                    /* the leader is in the app */
        int watching;                  /* somebody is on watch */
        int asleep;                    /* the watch sleeps until somebody tells it */
        int vacant;                    /* the leadership was given up: take it */
        int idle;                      /* followers */
        int stop;
        uint64_t seen;                 /* sequence at which the last watch found the leader stuck */
        int calm;                      /* looks since a call was found blocked, up to DF_CALM_LOOKS */
        int push_fd;                   /* the leader's call left bytes held back in this socket; -1: in none */
    } df_crew;

    static int64_t df_crew_now(void) {
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
    }
    static df_crew *df_crew_new(void) {
        df_crew *crew = calloc(1, sizeof *crew);
        if (!crew) return NULL;
        crew->push_fd = -1;
        pthread_mutex_init(&crew->lock, NULL);
    #ifdef __linux__
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&crew->watch, &attributes);
        pthread_cond_init(&crew->spare, &attributes);
        pthread_condattr_destroy(&attributes);
    #else
        pthread_cond_init(&crew->watch, NULL);
        pthread_cond_init(&crew->spare, NULL);
    #endif
        return crew;
    }
    static void df_crew_free(df_crew *crew) {
        if (!crew) return;
        pthread_mutex_destroy(&crew->lock);
        pthread_cond_destroy(&crew->watch);
        pthread_cond_destroy(&crew->spare);
        free(crew);
    }
    static int df_timed_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t nanoseconds) {
        struct timespec until;
    #ifdef __linux__
        clock_gettime(CLOCK_MONOTONIC, &until);
    #else
        clock_gettime(CLOCK_REALTIME, &until);
    #endif
        until.tv_sec += nanoseconds / 1000000000;
        until.tv_nsec += nanoseconds % 1000000000;
        if (until.tv_nsec >= 1000000000) { until.tv_nsec -= 1000000000; until.tv_sec++; }
        return pthread_cond_timedwait(condition, lock, &until);
    }

    static void df_push_held(df_crew *crew) {
        int fd = __atomic_load_n(&crew->push_fd, __ATOMIC_ACQUIRE), on = 1;
        /* Setting the option flushes what MSG_MORE held back (tcp(7)). The call may end meanwhile: then this does nothing. */
        if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }

    /* ---- a follower, without the GIL ---- */
    static int df_watch_leader(df_crew *crew) {
        int quiet = 0;
        while (!crew->stop && !crew->vacant) {
            uint64_t before = __atomic_load_n(&crew->sequence, __ATOMIC_SEQ_CST);
            int calm = crew->calm >= DF_CALM_LOOKS && __atomic_load_n(&crew->push_fd, __ATOMIC_ACQUIRE) < 0;
            if (quiet >= DF_QUIET_LOOKS) {
                /* asleep is published before in_app is read, and df_enter() does it the other way round: one of us notices. */
                __atomic_store_n(&crew->asleep, 1, __ATOMIC_SEQ_CST);
                if (!__atomic_load_n(&crew->in_app, __ATOMIC_SEQ_CST))
                    pthread_cond_wait(&crew->watch, &crew->lock);
                __atomic_store_n(&crew->asleep, 0, __ATOMIC_SEQ_CST);
                quiet = 0;
                continue;
            }
            df_timed_wait(&crew->watch, &crew->lock, calm ? DF_CALM_WATCH : DF_WATCH);
            if (crew->stop || crew->vacant) break;
            if (__atomic_load_n(&crew->sequence, __ATOMIC_SEQ_CST) == before) {
                if (__atomic_load_n(&crew->in_app, __ATOMIC_SEQ_CST)) {
                    __atomic_store_n(&crew->seen, before, __ATOMIC_SEQ_CST);
                    crew->calm = 0;
                    df_push_held(crew);
                    return DF_STUCK;
                }
                quiet++;
            } else {
                quiet = 0;
                if (crew->calm < DF_CALM_LOOKS) crew->calm++;
            }
        }
        return crew->stop ? DF_STOP : DF_LEAD;
    }
    static int df_follow(df_crew *crew) {
        int result = -1;
        pthread_mutex_lock(&crew->lock);
        __atomic_fetch_add(&crew->idle, 1, __ATOMIC_RELAXED);
        while (result < 0) {
            if (crew->stop) result = DF_STOP;
            else if (crew->vacant) result = DF_LEAD;
            else if (crew->watching) {
                if (df_timed_wait(&crew->spare, &crew->lock, (int64_t)DF_SPARE_TIME * 1000000000) == ETIMEDOUT
                    && crew->watching && !crew->vacant && !crew->stop)
                    result = DF_RETIRE;
            } else {
                crew->watching = 1;
                result = df_watch_leader(crew);
                crew->watching = 0;
            }
        }
        if (result == DF_LEAD) crew->vacant = 0;
        __atomic_fetch_sub(&crew->idle, 1, __ATOMIC_RELAXED);
        pthread_cond_signal(&crew->spare);   /* the next one on watch */
        pthread_mutex_unlock(&crew->lock);
        return result;
    }

    /* The watch of a crew of one: it never takes over, it only sends what a slow call holds back. */
    static void df_only_push(df_crew *crew) {
        int quiet = 0;
        pthread_mutex_lock(&crew->lock);
        while (!crew->stop) {
            uint64_t before = __atomic_load_n(&crew->sequence, __ATOMIC_SEQ_CST);
            if (quiet >= DF_QUIET_LOOKS) {
                __atomic_store_n(&crew->asleep, 1, __ATOMIC_SEQ_CST);
                if (__atomic_load_n(&crew->push_fd, __ATOMIC_SEQ_CST) < 0)
                    pthread_cond_wait(&crew->watch, &crew->lock);
                __atomic_store_n(&crew->asleep, 0, __ATOMIC_SEQ_CST);
                quiet = 0;
                continue;
            }
            df_timed_wait(&crew->watch, &crew->lock, DF_WATCH);
            if (__atomic_load_n(&crew->push_fd, __ATOMIC_SEQ_CST) < 0) quiet++;
            else {
                quiet = 0;
                if (__atomic_load_n(&crew->sequence, __ATOMIC_SEQ_CST) == before) df_push_held(crew);
            }
        }
        pthread_mutex_unlock(&crew->lock);
    }

    /* ---- the leader, with the GIL ---- */
    static void df_rouse(df_crew *crew) {
        pthread_mutex_lock(&crew->lock);
        pthread_cond_signal(&crew->watch);
        pthread_mutex_unlock(&crew->lock);
    }
    static void df_enter_unwatched(df_crew *crew) {
        __atomic_store_n(&crew->sequence, crew->sequence + 1, __ATOMIC_RELAXED);
    }
    static void df_enter(df_crew *crew) {
        df_enter_unwatched(crew);
        __atomic_store_n(&crew->in_app, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&crew->asleep, __ATOMIC_SEQ_CST)) df_rouse(crew);
    }
    static void df_leave(df_crew *crew) {
        __atomic_store_n(&crew->push_fd, -1, __ATOMIC_RELEASE);
        __atomic_store_n(&crew->in_app, 0, __ATOMIC_RELEASE);
    }
    static void df_hold_back(df_crew *crew, int fd) {
        __atomic_store_n(&crew->push_fd, fd, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&crew->asleep, __ATOMIC_SEQ_CST)) df_rouse(crew);
    }
    static int df_still_stuck(df_crew *crew) {
        /* The next watch may be writing what it has seen meanwhile. */
        return __atomic_load_n(&crew->in_app, __ATOMIC_SEQ_CST)
            && crew->sequence == __atomic_load_n(&crew->seen, __ATOMIC_SEQ_CST);
    }
    static void df_vacate(df_crew *crew) {
        pthread_mutex_lock(&crew->lock);
        crew->vacant = 1;
        __atomic_store_n(&crew->in_app, 0, __ATOMIC_SEQ_CST);
        if (crew->watching) pthread_cond_signal(&crew->watch);
        else pthread_cond_signal(&crew->spare);
        pthread_mutex_unlock(&crew->lock);
    }
    static int df_reclaim(df_crew *crew) {   /* a thread that is free anyway takes a vacant leadership */
        int vacant;
        pthread_mutex_lock(&crew->lock);
        vacant = crew->vacant;
        crew->vacant = 0;
        pthread_mutex_unlock(&crew->lock);
        return vacant;
    }
    static int df_idle(df_crew *crew) { return __atomic_load_n(&crew->idle, __ATOMIC_RELAXED); }
    static void df_halt(df_crew *crew) {
        pthread_mutex_lock(&crew->lock);
        crew->stop = 1;
        pthread_cond_broadcast(&crew->watch);
        pthread_cond_broadcast(&crew->spare);
        pthread_mutex_unlock(&crew->lock);
    }
    """
    ctypedef struct df_crew:
        pass
    enum:
        DF_LEAD, DF_STUCK, DF_RETIRE, DF_STOP
        DF_WATCH
    int64_t df_crew_now() nogil
    df_crew* df_crew_new() nogil
    void df_crew_free(df_crew* crew) nogil
    int df_follow(df_crew* crew) nogil
    void df_only_push(df_crew* crew) nogil
    void df_enter(df_crew* crew) nogil
    void df_enter_unwatched(df_crew* crew) nogil
    void df_leave(df_crew* crew) nogil
    void df_hold_back(df_crew* crew, int fd) nogil
    void df_push_held(df_crew* crew) nogil
    int df_still_stuck(df_crew* crew) nogil
    void df_vacate(df_crew* crew) nogil
    int df_reclaim(df_crew* crew) nogil
    int df_idle(df_crew* crew) nogil
    void df_halt(df_crew* crew) nogil

_logger = logging.getLogger("duckfast")

# Above this share of blocking calls the leadership is handed over before the call: a switch of threads (some microseconds)
# against the watch's delay (DF_WATCH to twice that).
cdef double HAND_OVER = 0.5
cdef double LEARN = 1.0 / 8     # weight of one call in the average
cdef int MOST_SHORTAGES = 100   # of memory, one after the other without a look at the kernel's events
cdef double FORGOTTEN = 0.001   # below this it is left alone: most apps never block, and pay nothing


cdef class Crew:
    """The threads of one reactor.

    limit: threads at most; spawn: called without arguments when one more is wanted, starts a thread that calls work();
    drained: called without arguments once nothing is accepted any more.
    """

    def __cinit__(self, Reactor reactor not None, int limit, spawn, drained):
        self._state = df_crew_new()
        if self._state == NULL:
            raise MemoryError
        self.reactor = reactor
        self.limit = limit
        self._spawn = spawn
        self._drained = drained
        self.deadline = INT64_MAX
        self.desks = []

    def __dealloc__(self):
        df_crew_free(<df_crew*>self._state)

    def keep(self, int threads) -> None:
        """Has so many threads from now on, which do not go when they have had nothing to do for a minute."""
        self.staying = min(threads, self.limit)
        while self.threads < self.staying:   # the first ones may be hiring as well
            self.hire()

    def enlist(self) -> None:
        """Counts the calling thread as one of the crew: it will call work() itself."""
        self.enlisted = True
        self.threads += 1

    def hire(self) -> None:
        """Starts one more thread."""
        self.threads += 1
        try:
            self._spawn()
        except BaseException:
            self.threads -= 1
            raise

    def work(self) -> None:
        """One thread's life: leads or follows until the crew has finished. hire() has counted it."""
        cdef Desk desk = None
        cdef int role
        cdef df_crew* state = <df_crew*>self._state
        try:
            desk = Desk.__new__(Desk, self.reactor.limits)
            self.desks.append(desk)
            while not self.finished and self.threads <= self.limit:
                if self.leader is None:
                    df_reclaim(state)
                    self.leader = desk
                    self._stand_in()
                    try:
                        self._lead(desk)
                    except MemoryError as error:
                        self.leader = None
                        self._bear_shortage(error)
                    except Exception as error:
                        # A defect, ours or the system's, and nobody would poll any more. It ends here, where it is seen.
                        _logger.critical("the engine cannot go on", exc_info=error)
                        self.leader = None
                        if self.failure is not None:
                            self.finish()   # not even an orderly end is possible
                        self.give_up(error)
                    continue
                with nogil:
                    role = df_follow(state)
                if role == DF_STUCK and df_still_stuck(state):
                    self.blocked += (1 - self.blocked) * LEARN
                    df_push_held(state)   # once more: from here on the old leader's blocks leave one by one
                    df_leave(state)
                    self.leader = None   # taken at the top of the loop
                elif role == DF_STOP or role == DF_RETIRE and self.threads > self.staying:
                    break
        except MemoryError:
            _logger.error("a thread of the server's ended: out of memory")
            self.short = True
        finally:
            self.threads -= 1
            if desk in self.desks:
                self.desks.remove(desk)
            if desk is not None and self.leader is desk:
                self.leader = None
            if self.leader is None:
                df_vacate(state)   # it may have come from the watch to take over, and found that it is one thread too many

    cdef int _bear_shortage(self, object error) except -1:
        """What the leader was about to do is tried again: a lack of memory passes, or nothing can be done any more."""
        self.shortages += 1
        if self.shortages > MOST_SHORTAGES:
            return self.give_up(error)
        _logger.error("out of memory", exc_info=error)
        return 0

    def watch(self) -> None:
        """The life of a thread that never runs the app, for a crew of one: it sends what a slow call holds back."""
        self.watched = True
        with nogil:
            df_only_push(<df_crew*>self._state)
        self.watched = False

    def stop(self, double seconds) -> None:
        """Begins the drain; requests that are left after `seconds` are reset. From any thread or signal handler."""
        cdef int64_t deadline = now() + <int64_t>(seconds * 1e9)
        if not self.stopping or deadline < self.deadline:
            self.deadline = deadline
            self.stopping = True
        # Here as well as in drain(): the only thread may be in the app, for a connection that it has taken.
        self.reactor.outside.interrupt(False)
        self.reactor.wake()

    def retire(self, double seconds) -> None:
        """Ends accepting, and every connection with its next response, within `seconds`. From any thread or signal handler."""
        if not self.stopping and not self.retiring:
            self.deadline = now() + <int64_t>(seconds * 1e9)
            self.retiring = True
        self.reactor.announce_end()
        self.reactor.wake()

    def in_flight(self) -> list:
        """(method, path, seconds since it began) of the requests whose app code a thread is in. Whoever calls holds the GIL."""
        cdef list exchanges = []
        cdef Desk desk
        for desk in self.desks:
            if desk.exchange is not None:
                exchanges.append(desk.exchange)
        return describe_all(exchanges)

    def finish(self) -> None:
        """Ends every thread that is not in the app."""
        self.finished = True
        df_halt(<df_crew*>self._state)
        self.reactor.wake()

    cdef int _lead(self, Desk desk) except -1:
        cdef Reactor reactor = self.reactor
        cdef Channel channel
        cdef uint32_t ready = 0
        reactor.sleeping = False
        self._keep_up(desk, now())   # under a load that always blocks nobody ever gets to wait
        while self.leader is desk and not self.finished:
            channel = reactor.take_ready(&ready)
            if channel is None:
                self._wait(desk)
            else:
                channel.handle(desk, ready)
        return 0

    cdef int _keep_up(self, Desk desk, int64_t time) except -1:
        """The heartbeat, deadlines, and the steps of an end."""
        cdef Reactor reactor = self.reactor
        if time >= reactor.beat_at:
            reactor.beat(time)
        if reactor.arrived:
            reactor.take_in()
        reactor.expire(desk, time)
        if self.short:
            self.short = False
            self._stand_in()
        if self.retiring or self.stopping:
            self._go_on_ending(desk, time)
        return 0

    cdef int _go_on_ending(self, Desk desk, int64_t time) except -1:
        cdef Reactor reactor = self.reactor
        cdef bint accepted = not reactor.retiring
        if self.stopping:
            reactor.drain(desk)
        else:
            reactor.retire()
        if accepted:
            self._drained()
        if (reactor.open_connections or len(reactor.outside)) and time < self.deadline:
            return 0
        if not self.parting:
            self.parting = True
            self.deadline = time + <int64_t>(reactor.part(desk) * 1e9)
            if reactor.open_connections:
                return 0
        reactor.abort()
        self.finish()
        return 0

    cdef int _wait(self, Desk desk) except -1:
        """Everything ready is handled: sleep until there is more."""
        cdef Reactor reactor = self.reactor
        cdef int64_t at
        cdef int64_t time = now()
        self._keep_up(desk, time)
        if self.finished or self.leader is not desk:
            return 0
        if reactor.one_by_one:
            reactor.call_next()   # what has come before it gets its answer or its place in line by the look that follows
        if reactor.ready_head is not None:
            reactor.poller.look()
            return 0
        at = min(reactor.next_deadline(), reactor.beat_at)
        if self.retiring or self.stopping:
            at = min(at, self.deadline)
        reactor.promised = at
        reactor.sleeping = True
        try:
            reactor.poller.wait(-1 if at == INT64_MAX else max(0, at - time))
        finally:
            reactor.sleeping = False
        self.shortages = 0
        return 0

    cdef int _stand_in(self) except -1:
        """A leader needs a follower who notices when it is stuck: one more thread when there is none."""
        if df_idle(<df_crew*>self._state) == 0 and self.threads < self.limit and not self.stopping and not self.retiring:
            try:
                self.hire()
            except RuntimeError as error:   # the system gives no more threads: those that there are go on
                self.limit = self.threads
                _logger.warning("no more than %d threads: %s", self.threads, error)
            except MemoryError:
                self.short = True   # it is tried again when the leader has nothing to do
        return 0

    cdef int enter_app(self, Desk desk) except -1:
        cdef df_crew* state = <df_crew*>self._state
        if self.leader is not desk:
            return 0
        if self.reactor.clock >= self.reactor.beat_at:
            self.reactor.beat(self.reactor.clock)
        if self.limit == 1:
            df_enter_unwatched(state)   # nobody could take over; what the call holds back has a watch of its own
            return 0
        if self.blocked > FORGOTTEN:
            desk.entered = df_crew_now()
        if self.blocked > HAND_OVER:
            # Also when nobody is free: whoever comes back first then leads, without a look at this thread.
            self.leader = None
            df_vacate(state)
            self._stand_in()
        else:
            df_enter(state)
        return 0

    cdef bint leave_app(self, Desk desk) except -1:
        cdef bint handed_over = self.leader is not desk
        cdef bint long_call = handed_over
        if not handed_over:
            df_leave(<df_crew*>self._state)
        if desk.entered:
            long_call = df_crew_now() - desk.entered >= DF_WATCH
            desk.entered = 0
            self.blocked += (long_call - self.blocked) * LEARN
        if desk.released:
            desk.released = False
            self.threads += 1   # one too many, perhaps: then work() ends it
        return long_call

    cdef bint may_hold_back(self, Desk desk, int fd) noexcept:
        # Only while somebody watches this call: nobody does when the leadership has gone, or when there is one thread.
        if self.leader is not desk or not self.watched and self.threads == 1:
            return False
        df_hold_back(<df_crew*>self._state, fd)
        return True

    cdef int release(self, Desk desk) except -1:
        if self.enlisted or desk.released:
            return 0
        desk.released = True
        self.threads -= 1
        if self.leader is desk:
            self.leader = None
            df_vacate(<df_crew*>self._state)
        return self._stand_in()

    cdef int give_up(self, object failure) except -1:
        if self.failure is None:
            self.failure = failure
        self.stop(0)
        return 0

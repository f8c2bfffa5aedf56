"""One WSGI call: environ, wsgi.input, start_response, the response (PEP 3333). Knows a channel's verbs, not which HTTP carries it.

The app runs on the thread that handles the channel, inside begin(), body_data() or body_end(): whichever brings the last byte
of a short body, or the one after which a longer body is better read by the app itself. The file is long because environ, input
and response are phases of one exchange and share its C fields.
"""

import errno
import logging
import os
import stat
import sys

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_SetDefault, PyDict_SetItem, PyDict_Update
from cpython.list cimport PyList_CheckExact
from cpython.tuple cimport PyTuple_CheckExact
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp

from duckfast._debug cimport ALIVE_EXCHANGE, DUCKFAST_DEBUG, count_alive
from duckfast._forwarded cimport Forwarded
from duckfast._headers cimport NAME_COOKIE, NAME_HOST, NAME_PROXY, wsgi_name
from duckfast._http1 cimport CLOSED, DATA, END, Event
from duckfast._parser cimport Head, Span, unquote
from duckfast._poller cimport now
from duckfast._reactor cimport IN_LINE, INSIDE, ITS_TURN, RESPONSE_SHORT, SENT_TOO_LONG, Listener
from duckfast._transport cimport OpenFile
from duckfast._writer cimport WRITE_OK, WriteError, describe

from duckfast.exceptions import ApplicationError, ClientDisconnected

cdef extern from "Python.h":
    object PyMethod_New(object function, object instance)

cdef extern from *:
    """
    static inline const char *df_latin1(PyObject *text, Py_ssize_t *size) {
        /* The characters of a str as bytes, without a copy; NULL when one of them is above U+00FF. */
        if (PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND) return NULL;
        *size = PyUnicode_GET_LENGTH(text);
        return (const char *)PyUnicode_1BYTE_DATA(text);
    }
    """
    const char* df_latin1(object text, Py_ssize_t* size)

_logger = logging.getLogger("duckfast")

cdef object GET = sys.intern("GET")
cdef object POST = sys.intern("POST")
cdef object EMPTY = ""
cdef object HTTP_1_0 = sys.intern("HTTP/1.0")
cdef object HTTP_1_1 = sys.intern("HTTP/1.1")
cdef object K_METHOD = sys.intern("REQUEST_METHOD")
cdef object K_PATH = sys.intern("PATH_INFO")
cdef object K_QUERY = sys.intern("QUERY_STRING")
cdef object K_RAW_URI = sys.intern("RAW_URI")
cdef object K_REQUEST_URI = sys.intern("REQUEST_URI")
cdef object K_PROTOCOL = sys.intern("SERVER_PROTOCOL")
cdef object K_SERVER_NAME = sys.intern("SERVER_NAME")
cdef object K_SERVER_PORT = sys.intern("SERVER_PORT")
cdef object K_REMOTE_ADDR = sys.intern("REMOTE_ADDR")
cdef object K_REMOTE_PORT = sys.intern("REMOTE_PORT")
cdef object K_SCHEME = sys.intern("wsgi.url_scheme")
cdef object K_INPUT = sys.intern("wsgi.input")
cdef object K_EARLY_HINTS = sys.intern("wsgi.early_hints")
cdef object K_HOST = sys.intern("HTTP_HOST")
cdef object K_HTTPS = sys.intern("HTTPS")
cdef object K_SCRIPT_NAME = sys.intern("SCRIPT_NAME")
# Where apps look for the connection that they take over to speak WebSocket by themselves.
cdef object K_GUNICORN_SOCKET = sys.intern("gunicorn.socket")
cdef object K_WERKZEUG_SOCKET = sys.intern("werkzeug.socket")


cdef inline object text_of(Span span):
    return PyUnicode_DecodeLatin1(span.data, span.size, NULL) if span.size else EMPTY


cdef class ErrorStream:
    """wsgi.errors: text to the process's standard error, whatever it is at the time."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def writelines(self, lines) -> None:
        sys.stderr.writelines(lines)

    def flush(self) -> None:
        sys.stderr.flush()


cdef class FileWrapper:
    def __init__(self, filelike, Py_ssize_t block_size=8192):
        self.filelike = filelike
        self.block_size = block_size
        self.close = getattr(filelike, "close", None) or _nothing

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.block_size)
        if not data:
            raise StopIteration
        return data


def _nothing():
    pass


cdef class WSGIService(Service):
    """Makes the exchanges of one app. crew is told when app code begins and ends; environ holds the process's own entries.

    root_path_mode: with `prefix` requests come without root_path, with `set` and `strip` they come with it.
    """

    def __init__(self, app, Crew crew not None, str root_path, str root_path_mode, bint multithread,
                 str server_software, bint multiprocess=False):
        self.app = app
        self.crew = crew
        self.body_buffer = crew.reactor.limits.body_buffer
        self.script_name = root_path.rstrip("/").encode().decode("latin-1")
        self.splits = root_path_mode != "prefix"
        # Whatever most requests have in common is in the template: a request only sets what differs.
        template = {
            K_METHOD: GET,
            K_PATH: "/",
            K_QUERY: "",
            K_RAW_URI: "/",
            K_REQUEST_URI: "/",
            K_PROTOCOL: HTTP_1_1,
            K_SERVER_NAME: "",
            K_SERVER_PORT: "",
            K_REMOTE_ADDR: "",
            K_REMOTE_PORT: "",
            K_SCHEME: "http",
            K_INPUT: NO_INPUT,
            K_EARLY_HINTS: None,
            K_SCRIPT_NAME: self.script_name,
            "SERVER_SOFTWARE": server_software,
            "wsgi.version": (1, 0),
            "wsgi.errors": ErrorStream(),
            "wsgi.multithread": multithread,
            "wsgi.multiprocess": multiprocess,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        self.template = template

    cdef Exchange new_exchange(self, Channel channel, Head* head):
        cdef WSGIExchange exchange = WSGIExchange.__new__(WSGIExchange)
        exchange.service = self
        return exchange


cdef class WSGIExchange(Exchange):
    def __cinit__(self):
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_EXCHANGE, 1)

    def __dealloc__(self):
        if DUCKFAST_DEBUG:
            count_alive(ALIVE_EXCHANGE, -1)

    # ------------------------------------------------------------------ the request

    cdef int begin(self, Desk desk) except -1:
        cdef Head* head = desk.head
        cdef int64_t length = head.content_length
        self.desk = desk
        self.environ = self._environ(desk)
        if length <= 0 and not head.chunked:
            return 0   # body_end() follows at once and makes the call
        self.input = Input.__new__(Input)
        self.input.exchange = self
        self.input.chunk = b""
        self.environ[K_INPUT] = self.input
        if head.expect_continue:
            self._call()   # the peer waits to be asked
        # A body too long to be held is the app's to read once so much of it is here. Until then it holds no thread: one that
        # announces much and sends little would.
        return 0

    cdef int body_data(self, const char* data, size_t size) except -1:
        if self.gathered == 0:
            self.input.chunk = PyBytes_FromStringAndSize(data, size)
        else:
            if self.pieces is None:
                self.pieces = [self.input.chunk]
            self.pieces.append(PyBytes_FromStringAndSize(data, size))
        self.gathered += size
        if self.gathered > self.service.body_buffer:
            self._join_pieces()
            self.channel.leave_body()
            self._call()
        return 0

    cdef int body_end(self) except -1:
        if self.called:
            return 0
        if self.input is not None:
            self.input.exchange = None
            self._join_pieces()
        return self._call()

    cdef Desk desk_in_app(self):
        cdef Desk desk = self.desk
        return desk if desk is not None and desk.exchange is self else None

    cdef tuple describe(self):
        cdef dict environ = self.environ
        return None if environ is None else (environ.get(K_METHOD), environ.get(K_PATH))

    cdef dict facts(self):
        return self.environ

    cdef int _join_pieces(self) except -1:
        if self.pieces is not None:
            self.input.chunk = b"".join(self.pieces)
            self.pieces = None
        return 0

    cdef dict _template(self):
        """What every request of this listener begins with."""
        cdef Listener listener = self.channel.listener
        cdef dict template
        if listener.template is None:
            template = PyDict_Copy(self.service.template)
            template[K_SCHEME] = listener.scheme
            if not listener.is_unix:
                template[K_SERVER_NAME] = listener.host
                template[K_SERVER_PORT] = str(listener.port)
            listener.template = template
        return <dict>listener.template

    cdef dict _environ(self, Desk desk):
        cdef Channel channel = self.channel
        cdef Head* head = desk.head
        cdef dict template = self._template()
        cdef dict environ
        cdef object target = text_of(head.target)
        cdef object client = channel.client_host()
        if client != template[K_REMOTE_ADDR]:
            template[K_REMOTE_ADDR] = client   # behind a proxy it is the same for all
        environ = PyDict_Copy(template)
        if head.method.size != 3 or memcmp(head.method.data, b"GET", 3) != 0:
            PyDict_SetItem(environ, K_METHOD, _method(&head.method))
        if head.query.size:
            PyDict_SetItem(environ, K_QUERY, text_of(head.query))
        if head.minor == 0:
            PyDict_SetItem(environ, K_PROTOCOL, HTTP_1_0)
        PyDict_SetItem(environ, K_RAW_URI, target)
        PyDict_SetItem(environ, K_REQUEST_URI, target)
        self._set_path(environ, head, target)
        PyDict_SetItem(environ, K_REMOTE_PORT, channel.client_port_text())
        PyDict_SetItem(environ, K_EARLY_HINTS, PyMethod_New(EARLY_HINTS, self))
        self._fields(environ, head)
        if channel.security != 0:
            PyDict_Update(environ, channel.tls().environ)
        if channel.listener.is_unix and channel.server_port() is None:
            name, colon, port = environ.get(K_HOST, "localhost").rpartition(":")
            PyDict_SetItem(environ, K_SERVER_NAME, name if colon else port)
            PyDict_SetItem(environ, K_SERVER_PORT, port if colon else "443" if channel.security != 0 else "80")
        elif channel.listener.wildcard or channel.proxied:
            PyDict_SetItem(environ, K_SERVER_NAME, channel.server_host())
            PyDict_SetItem(environ, K_SERVER_PORT, channel.server_port_text())
        if channel.proxied_https:
            PyDict_SetItem(environ, K_SCHEME, "https")
            PyDict_SetItem(environ, K_HTTPS, "on")
        if channel.forwarded is not None:
            self._add_forwarded(environ)
        if head.upgrade_websocket:
            environ[K_GUNICORN_SOCKET] = environ[K_WERKZEUG_SOCKET] = ClientSocket.later(self._hand_over)
        if self.service.splits and head.path.data[0] == c"/":
            self._split_path(environ)
        return environ

    cdef int _add_forwarded(self, dict environ) except -1:
        """What a trusted proxy says in place of what the connection shows; Host has been replaced in the head."""
        cdef Forwarded told = self.channel.forwarded
        if told.scheme is not None:
            PyDict_SetItem(environ, K_SCHEME, told.scheme)
            if told.scheme == "https":
                PyDict_SetItem(environ, K_HTTPS, "on")
            else:
                environ.pop(K_HTTPS, None)
        if told.server_host is not None:
            PyDict_SetItem(environ, K_SERVER_NAME, told.server_host)
        if told.server_port is not None:
            PyDict_SetItem(environ, K_SERVER_PORT, str(told.server_port))
        if told.prefix is not None:
            PyDict_SetItem(environ, K_SCRIPT_NAME, told.prefix)
        return 0

    cdef int _split_path(self, dict environ) except -1:
        """PEP 3333: SCRIPT_NAME and PATH_INFO together are the path; a request from elsewhere has no SCRIPT_NAME."""
        cdef str script_name = environ[K_SCRIPT_NAME]
        cdef str path = environ[K_PATH]
        cdef Py_ssize_t size = len(script_name)
        if path.startswith(script_name) and (len(path) == size or path[size] == "/"):
            PyDict_SetItem(environ, K_PATH, path[size:])
        else:
            PyDict_SetItem(environ, K_SCRIPT_NAME, EMPTY)
        return 0

    cdef int _set_path(self, dict environ, Head* head, object target) except -1:
        cdef char* decoded
        cdef size_t size
        if not head.path_escaped:
            PyDict_SetItem(environ, K_PATH, target if head.path.size == head.target.size else text_of(head.path))
            return 0
        decoded = <char*>malloc(head.path.size)
        if decoded == NULL:
            raise MemoryError
        try:
            size = unquote(head.path.data, head.path.size, decoded)
            PyDict_SetItem(environ, K_PATH, PyUnicode_DecodeLatin1(decoded, size, NULL))
        finally:
            free(decoded)
        return 0

    cdef int _fields(self, dict environ, Head* head) except -1:
        cdef Field* field = head.fields
        cdef Field* end = field + head.field_count
        cdef object name, value, present
        while field < end:
            if field.underscore or field.name_id == NAME_PROXY:
                # X_A would shadow X-A; HTTP_PROXY would steer the app's own HTTP clients (httpoxy).
                field += 1
                continue
            name = wsgi_name(field.name_id, field.name.data, field.name.size)
            if field.name_id == NAME_HOST and head.authority.data != NULL:
                value = text_of(head.authority)   # RFC 9112 3.2.2: the target's authority replaces Host
            else:
                value = text_of(field.value)
            present = <object>PyDict_SetDefault(environ, name, value)
            if present is not value:
                PyDict_SetItem(environ, name, present + ("; " if field.name_id == NAME_COOKIE else ",") + value)
            field += 1
        if head.host < 0 and head.authority.data != NULL:
            PyDict_SetItem(environ, K_HOST, text_of(head.authority))
        return 0

    # ------------------------------------------------------------------ the call

    cdef bint wants_body(self) noexcept:
        return self.place != IN_LINE and self.place != ITS_TURN

    cdef int proceed(self, Desk desk) except -1:
        self.desk = desk
        return self._run()

    cdef int _call(self) except -1:
        """Calls the app, now or when its turn comes."""
        self.called = True
        if self.service.crew.reactor.gated and not self.service.crew.reactor.admit(self):
            return 0
        return self._run()

    cdef int _run(self) except -1:
        cdef WSGIService service = self.service
        cdef Desk desk = self.desk
        cdef dict environ = self.environ
        cdef Channel channel = self.channel   # which the response's end takes from us
        cdef object result = None
        cdef bint inside = False
        desk.exchange = self
        try:
            service.crew.enter_app(desk)
            inside = True
            try:
                result = service.app(environ, PyMethod_New(START_RESPONSE, self))
                self._respond(result)
            except BaseException as error:
                self._fail(error)
                self._end_process_with(error)
            if result is not None and not PyList_CheckExact(result) and not PyTuple_CheckExact(result):
                self._close_result(result)
            if self.channel is not None:
                # Only an exchange that failed half way is still here.
                self.channel.break_off()
        finally:
            if inside:
                channel.slow = service.crew.leave_app(desk)
            if self.place == INSIDE:
                service.crew.reactor.leave(self)
            desk.exchange = None
            self.desk = None
            self.environ = None
            if self.input is not None:
                self.input = None
        return 0

    cdef int _close_result(self, object result) except -1:
        try:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            self.service.crew.reactor.counters.app_errors += 1
            _logger.exception("the app raised in close()")
            self._end_process_with(error)
        return 0

    cdef int _end_process_with(self, object error) except -1:
        """SystemExit, KeyboardInterrupt: the app means the process. Any other exception is a matter of this request."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            return self.service.crew.give_up(error)
        return 0

    # ------------------------------------------------------------------ the connection itself

    def take(self, int status=0, ClientSocket into=None) -> ClientSocket:
        """Takes the connection, open, out of the server, for an app that answers on it by itself; from the app's own thread.

        What the app returns is ignored then. status: what the access log is told (101: another protocol); 0: there is no line.
        Raises OSError when the response has begun, or the client has left.
        """
        cdef ClientSocket client = into if into is not None else ClientSocket.__new__(ClientSocket)
        self._take(client, status)
        return client

    def _hand_over(self, ClientSocket client):
        self._take(client, 101)

    cdef int _take(self, ClientSocket client, int status) except -1:
        if self.channel is None or self.desk is None:
            raise OSError(errno.ENOTCONN, "the request is over")
        self.channel.take(client, status)
        self.taken = True
        # It may go on for hours, and others must find threads that serve them.
        return self.service.crew.release(self.desk)

    cdef int _fail(self, object error) except -1:
        """The app raised: the client is told, if it can still be told."""
        cdef Channel channel = self.channel
        if self.taken and isinstance(error, StopIteration):
            return 0   # how an app that has taken gunicorn's socket says that there is no response
        if isinstance(error, ClientDisconnected) and (channel is None or self.error_status):
            # It met a body that broke, or a client that left: not its fault.
            if channel is not None:
                if self.head_ended:
                    channel.break_off()
                else:
                    channel.answer_error(self.error_status, self.error_reason)
            return 0
        self.service.crew.reactor.counters.app_errors += 1
        _logger.error("the app raised an exception", exc_info=error)
        if channel is None:
            return 0
        if self.head_ended:
            channel.break_off()
        else:
            channel.answer_error(500, b"the application failed")
        return 0

    # ------------------------------------------------------------------ start_response

    def start_response(self, status, headers, exc_info=None, /):
        """PEP 3333: begins the response. Returns write(data).

        status: "NNN reason"; headers: a list of (name, value) of str. Raises ApplicationError for what cannot be sent,
        AssertionError for a second call without exc_info, and exc_info's own exception when the head is out already.
        """
        cdef Channel channel = self.channel
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t value_size = 0
        cdef const char* text
        cdef const char* value_text
        cdef WriteError error
        cdef int code
        if self.taken:
            return self
        if exc_info is not None:
            try:
                if self.head_ended or channel is None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.head_started:
            raise AssertionError("start_response() was called a second time without exc_info")
        if self.starting:
            raise AssertionError("start_response() was called while it was reading the headers")
        if channel is None:
            raise ClientDisconnected("the client has left")
        if self.head_started:
            channel.drop_head()
            self.head_started = False
        if type(status) is not str:
            raise ApplicationError(f"status must be str, not {type(status).__name__}")
        if not isinstance(headers, list):
            raise ApplicationError(f"headers must be a list, not {type(headers).__name__}")
        text = df_latin1(status, &size)
        if text == NULL or size < 3 or not (c"0" <= text[0] <= c"9" and c"0" <= text[1] <= c"9" and c"0" <= text[2] <= c"9") \
                or size > 3 and text[3] != c" ":
            raise ApplicationError("status must be three digits, a space and a reason")
        code = (text[0] - c"0") * 100 + (text[1] - c"0") * 10 + text[2] - c"0"
        error = channel.start_head(code, text + min(size, 4), max(0, size - 4))
        if error != WRITE_OK:
            raise ApplicationError(describe(error))
        self.starting = True   # a list of the app's own kind runs its code here
        try:
            for name, value in headers:
                if self.channel is None:   # answered for meanwhile
                    raise ClientDisconnected("the client has left")
                if type(name) is not str or type(value) is not str:
                    raise ApplicationError("header names and values must be str")
                text = df_latin1(name, &size)
                value_text = df_latin1(value, &value_size)
                if text == NULL or value_text == NULL:
                    raise ApplicationError("a header holds a character above U+00FF")
                error = channel.add_field(text, size, value_text, value_size)
                if error != WRITE_OK:
                    raise ApplicationError(describe(error))
        except BaseException:
            if self.channel is not None:
                channel.drop_head()
            raise
        finally:
            self.starting = False
        self.head_started = True
        return self   # write(data) is to call it

    def __call__(self, data, /):
        """PEP 3333: sends a piece of body before the app returns; on return the kernel has it."""
        if type(data) is not bytes:
            raise ApplicationError(f"write() takes bytes, not {type(data).__name__}")
        if not self._send(data, False) and not self.taken:
            if self.overlong:
                raise ApplicationError("the body is longer than its Content-Length")
            raise ClientDisconnected("the client has left")

    def early_hints(self, headers, /):
        """wsgi.early_hints: sends 103 with these (name, value) pairs now, before the final response (RFC 8297)."""
        cdef Channel channel = self.channel
        if channel is None or self.head_ended or channel.connection.minor == 0:
            return   # HTTP/1.0 knows no interim responses
        lines = [b"HTTP/1.1 103 Early Hints\r\n"]
        for name, value in headers:
            name = name.encode("latin-1") if isinstance(name, str) else name
            value = value.encode("latin-1") if isinstance(value, str) else value
            for byte in name + value:
                if byte < 32 and byte != 9 or byte == 127:
                    raise ApplicationError("an early hint holds a control character")
            if not name or b":" in name or b" " in name:
                raise ApplicationError("an early hint's name is not a token")
            lines.append(name + b": " + value + b"\r\n")
        lines.append(b"\r\n")
        block = b"".join(lines)
        channel.send_interim(PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block))

    # ------------------------------------------------------------------ the response

    cdef int _end_head(self, int64_t body_size) except -1:
        cdef WriteError error
        if not self.head_started:
            raise ApplicationError("the app sent a body without calling start_response()")
        error = self.channel.end_head(body_size, False)
        if error != WRITE_OK:
            raise ApplicationError(describe(error))
        self.head_ended = True
        return 0

    cdef int _respond(self, object result) except -1:
        if self.channel is None:
            return 0
        if result is None:
            raise ApplicationError("the app returned None, not an iterable of bytes")
        if not self.head_ended:
            if PyList_CheckExact(result) or PyTuple_CheckExact(result):
                if len(result) == 1 and PyBytes_CheckExact(result[0]):
                    return self._respond_whole(result[0], PyBytes_GET_SIZE(result[0]))
                return self._respond_parts(result)
            if type(result) is FileWrapper and self.head_started and self._respond_file(<FileWrapper>result):
                return 0
        return self._respond_stream(result)

    cdef int _respond_whole(self, object body, Py_ssize_t size) except -1:
        """A body that is known as one bytes object: its length is known, and everything leaves in one system call."""
        cdef Channel channel = self.channel
        self._end_head(size)
        if size and channel.send_body(body, PyBytes_AS_STRING(body), size) == SENT_TOO_LONG:
            self._complain_overlong()
        return self._end()

    cdef int _respond_parts(self, object parts) except -1:
        """A list or tuple of bytes: complete, so its length is known as well."""
        for part in parts:
            if not isinstance(part, bytes):
                raise ApplicationError(f"the body holds {type(part).__name__}, not bytes")
        body = b"".join(parts)
        return self._respond_whole(body, PyBytes_GET_SIZE(body))

    cdef int _respond_stream(self, object result) except -1:
        """Each block is with the kernel before the next one is asked for."""
        cdef Py_ssize_t length = -1
        if isinstance(result, (bytes, str)):
            raise ApplicationError(f"the app returned {type(result).__name__}, not an iterable of bytes")
        if not self.head_ended:
            try:
                length = len(result)
            except Exception:
                length = -1   # a generator, or a proxy of one: its length is not known
        for block in result:
            if not isinstance(block, bytes):
                raise ApplicationError(f"the body holds {type(block).__name__}, not bytes")
            if not block:
                continue
            if length == 1 and not self.head_ended:
                # PEP 3333: the only block is the whole body.
                return self._respond_whole(block, PyBytes_GET_SIZE(block))
            if not self._send(block, True):
                break
        if self.channel is None:
            return 0
        if not self.head_ended:
            self._end_head(0)
        return self._end()

    cdef bint _respond_file(self, FileWrapper wrapper) except -1:
        """By sendfile, when there is a regular file behind the wrapper. False: it must be iterated."""
        cdef Channel channel = self.channel
        cdef OpenFile opened
        cdef int64_t size
        try:
            fd = wrapper.filelike.fileno()
            status = os.fstat(fd)
            offset = wrapper.filelike.tell()
        except (AttributeError, OSError, ValueError):
            return False   # io.BytesIO and the like have no descriptor
        if not stat.S_ISREG(status.st_mode):
            return False
        size = max(0, status.st_size - offset)
        if channel.response.content_length >= 0:
            size = min(size, channel.response.content_length)
        opened = OpenFile.__new__(OpenFile)
        opened.fd = os.dup(fd)
        self._end_head(size)
        if size:
            channel.send_file(opened, opened.fd, offset, size)
        self._end()
        return True

    cdef bint _send(self, object data, bint more) except -1:
        """A block of body, all the way to the kernel. False: nobody takes it.

        more: another block follows. The kernel may then gather them: PEP 3333 lets a block leave while the app makes the next
        one, and if that takes the app longer than the watch's patience, the watch sends what was gathered.
        """
        cdef Channel channel = self.channel
        if channel is None or self.overlong:
            return False
        if not self.head_ended:
            self._end_head(-1)
        if channel.send_body(data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) == SENT_TOO_LONG:
            self._complain_overlong()
        channel.more = more and not channel.listener.is_unix and self.service.crew.may_hold_back(self.desk, channel.transport.fd)
        channel.flush()
        channel.more = False
        if channel.reactor.heartbeat is not None:
            channel.reactor.beat(now())   # a block is progress, however long the whole response takes
        if channel.unsent():
            channel.wait_sent()
        return self.channel is not None and not self.overlong

    cdef int _complain_overlong(self) except -1:
        self.overlong = True
        self.service.crew.reactor.counters.app_errors += 1
        _logger.error("the app's body is longer than its Content-Length: the rest was not sent")
        return 0

    cdef int _end(self) except -1:
        cdef Channel channel = self.channel
        if channel is None:
            return 0
        if channel.end_body(NULL, 0) == RESPONSE_SHORT:
            self.service.crew.reactor.counters.app_errors += 1
            _logger.error("the app's body is shorter than its Content-Length: the connection ends")
        return channel.flush()


cdef object _method(Span* method):
    if method.size == 3 and memcmp(method.data, b"GET", 3) == 0:
        return GET
    if method.size == 4 and memcmp(method.data, b"POST", 4) == 0:
        return POST
    return PyUnicode_DecodeLatin1(method.data, method.size, NULL)


cdef class Input:
    """wsgi.input: a file of the request body. Ends with the body; never reads past it."""

    cdef bint _more(self) except -1:
        """Makes the next piece of body the chunk. False: the body has ended."""
        cdef WSGIExchange exchange = self.exchange
        cdef Channel channel
        cdef Event event
        if exchange is None:
            return False
        channel = exchange.channel
        if channel is None:
            raise ClientDisconnected("the request is over: its body can no longer be read")
        if exchange.error_status:
            raise ClientDisconnected(exchange.error_reason.decode())
        channel.ask_body()
        event = channel.wait_body(exchange.desk)
        if event == DATA:
            self.chunk = PyBytes_FromStringAndSize(channel.connection.body_data, channel.connection.body_size)
            self.position = 0
            return True
        if event == END:
            self.exchange = None
            return False
        if event == CLOSED:
            raise ClientDisconnected("the client left in the middle of its request")
        exchange.error_status = channel.connection.error_status
        exchange.error_reason = channel.connection.error_reason
        channel.connection.close_after_response()
        raise ClientDisconnected(exchange.error_reason.decode())

    cdef bytes _take(self, Py_ssize_t size):
        """Up to size bytes of the chunk."""
        cdef Py_ssize_t here = PyBytes_GET_SIZE(self.chunk) - self.position
        cdef bytes taken
        if size >= here:
            taken = self.chunk if self.position == 0 else self.chunk[self.position:]
            self.chunk = b""
            self.position = 0
            return taken
        taken = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.chunk) + self.position, size)
        self.position += size
        return taken

    cdef bytes _read(self, Py_ssize_t size):
        cdef bytes taken
        cdef list pieces
        if size < 0:
            size = sys.maxsize
        if size == 0:
            return b""
        if self.position == PyBytes_GET_SIZE(self.chunk) and not self._more():
            return b""
        taken = self._take(size)
        if PyBytes_GET_SIZE(taken) == size or self.exchange is None:
            return taken
        pieces = [taken]
        size -= PyBytes_GET_SIZE(taken)
        while size > 0 and self._more():
            taken = self._take(size)
            pieces.append(taken)
            size -= PyBytes_GET_SIZE(taken)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    cdef bytes _read_line(self, Py_ssize_t limit):
        cdef const char* start
        cdef const char* found
        cdef Py_ssize_t size
        cdef list pieces = []
        if limit < 0:
            limit = sys.maxsize
        while limit > 0:
            if self.position == PyBytes_GET_SIZE(self.chunk) and not self._more():
                break
            start = PyBytes_AS_STRING(self.chunk) + self.position
            size = min(limit, PyBytes_GET_SIZE(self.chunk) - self.position)
            found = <const char*>memchr(start, c"\n", size)
            if found != NULL:
                size = found - start + 1
            pieces.append(self._take(size))
            if found != NULL:
                break
            limit -= size
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read(self, size=-1, /) -> bytes:
        """Up to size bytes, all of them unless the body ends before; the whole rest without a size.

        Raises ClientDisconnected (an OSError) when the body cannot be completed.
        """
        return self._read(-1 if size is None else size)

    def readline(self, limit=-1, /) -> bytes:
        """A line with its newline, at most limit bytes of it; b"" at the end."""
        return self._read_line(-1 if limit is None else limit)

    def readlines(self, hint=-1, /) -> list:
        """The lines of the rest, or as many as hold about hint bytes."""
        cdef list lines = []
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t enough = -1 if hint is None else hint
        for line in self:
            lines.append(line)
            size += len(line)
            if 0 < enough <= size:
                break
        return lines

    def __iter__(self):
        return self

    def __next__(self):
        line = self._read_line(-1)
        if not line:
            raise StopIteration
        return line

    def close(self) -> None:
        """Does nothing: the connection is the server's."""


cdef Input NO_INPUT = Input.__new__(Input)   # of every request without a body: it has no state
NO_INPUT.chunk = b""

# Bound to an exchange without looking them up on it each time.
cdef object START_RESPONSE = WSGIExchange.__dict__["start_response"]
cdef object EARLY_HINTS = WSGIExchange.__dict__["early_hints"]

"""The class API: a server as an object, with one of its stages overridden.

Run it:  python class_api.py         (PORT=8080 in the environment: another port)
Try it:  curl localhost:8000/        and then  curl localhost:8000/count

The hook sees every request before the application, counts it, and answers /count by itself. A stage that is not overridden
costs nothing.
"""

import os
import signal
import threading

from duckfast.httpd import BaseServer


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"Hello! {environ['HTTP_X_SEEN_BY']}\n".encode()]


class CountingServer(BaseServer):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.count = 0
        self._lock = threading.Lock()

    def handle_request_data(self, sock, addr, request_data):
        method, target, version = request_data.request_line
        if target == "/count":
            return {"requests": self.count}  # a response of the hook's own, as JSON
        with self._lock:
            self.count += 1
        request_data.headers["x-seen-by"] = f"The hook saw {method} {target} from {addr[0]}."
        return super().handle_request_data(sock, addr, request_data)  # runs the application and writes its response


if __name__ == "__main__":
    server = CountingServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), app, workers=4)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop_server(wait=False))
    server.start_server()  # in the background, on four threads
    server.join()

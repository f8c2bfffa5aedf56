"""gunicorn with duckfast's worker, its hooks and an access log.

Run it: gunicorn -c gunicorn_conf.py wsgi_hello:app
"""

import os
import time

worker_class = "duckfast.gunicorn.WSGIWorker"  # for FastAPI, Starlette, Litestar: duckfast.gunicorn.ASGIWorker
bind = f"127.0.0.1:{os.environ.get('PORT', '8000')}"
workers = 2
threads = 8  # most at once in each worker; few are started, more come when all are busy
keepalive = 5
timeout = 30  # a worker that has not polled or begun a request for so long is replaced
graceful_timeout = 30
max_requests = 100_000
max_requests_jitter = 10_000

# The proxy in front, and how it says that a client has spoken TLS.
forwarded_allow_ips = "127.0.0.1,::1"
secure_scheme_headers = {"X-FORWARDED-PROTO": "https"}

accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s %(b)s %(M)sms'

# What gunicorn has no setting for.
raw_env = ["DUCKFAST_TIMEOUT_REQUEST_HEADERS=5s", "DUCKFAST_LIMIT_REQUEST_BODY=10m"]


def pre_request(worker, req):
    req.began = time.monotonic()


def post_request(worker, req, environ, resp):
    seconds = time.monotonic() - req.began
    if seconds > 1:
        worker.log.warning("%s %s took %.1fs", req.method, req.path, seconds)


def worker_abort(worker):
    worker.log.error("worker %s was stuck; the stacks of its threads are on standard error", worker.pid)

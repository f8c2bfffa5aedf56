"""A Flask application: forms, uploads, streams with context, files, sessions, JSON."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request, send_file, session, stream_with_context

app = Flask(__name__)
app.secret_key = "only for tests"


@app.get("/")
def index() -> Response:
    return jsonify(method=request.method, path=request.path, query=request.args.to_dict(), url=request.url)


@app.post("/form")
def form() -> Response:
    return jsonify(request.form.to_dict())


@app.post("/upload")
def upload() -> Response:
    file = request.files["file"]
    data = file.read()
    return jsonify(name=file.filename, size=len(data), sha256=hashlib.sha256(data).hexdigest(), note=request.form["note"])


@app.post("/json")
def json_body() -> Response:
    data = request.get_json()
    return jsonify(count=len(data), total=sum(item["number"] for item in data))


@app.post("/body")
def body() -> bytes:
    return request.get_data()


@app.get("/stream")
def stream() -> Response:
    def lines() -> Iterator[str]:
        for number in range(100):
            yield f"{request.args['word']} {number}\n"  # the request context is alive while the body is made

    return Response(stream_with_context(lines()), mimetype="text/plain")


@app.get("/file")
def file() -> Response:
    return send_file(os.environ["FLASK_FILE"], mimetype="application/octet-stream", conditional=True)


@app.get("/counter")
def counter() -> Response:
    session["count"] = session.get("count", 0) + 1
    return jsonify(count=session["count"])


@app.get("/error")
def error() -> Response:
    raise RuntimeError("secret of the view")


@app.get("/empty")
def empty() -> tuple[str, int]:
    return "", 204

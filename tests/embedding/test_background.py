"""A server on a thread in the background of somebody else's program."""

from __future__ import annotations

import io
import logging
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.authority import Authority
from support.client import connect, fetch, read_answer, send_request
from support.guests import Guest, wsgi

import duckfast
from duckfast import BindError, Config, ConfigError, ImportFailure, LifespanFailure, Server


def refused(url: str) -> bool:
    try:
        connect(url).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(("app", "says"), [(wsgi, "wsgi /a"), (Guest(), "asgi /a")], ids=["wsgi", "asgi"])
def test_with_block_serves_on_a_free_port_and_nothing_after_it(app: Any, says: str) -> None:
    with Server(app, port=0) as server:
        assert server.running
        assert fetch(server.url, "/a").text == says
        assert server.addresses == [server.url]
    assert not server.running
    assert refused(server.url)


def test_lifespan_runs_from_start_to_end() -> None:
    app = Guest()
    with Server(app, port=0) as server:
        assert app.notes == ["startup"]
        assert fetch(server.url).status == 200
    assert app.notes == ["startup", "shutdown"]


def test_server_takes_a_configuration_a_target_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "guest_site.py").write_text("from support.guests import Guest\napp = Guest('target')\n")
    config = Config("guest_site:app", app_dir=str(tmp_path), port=1)
    with Server(config, port=0) as server:
        assert fetch(server.url).text == "target /"
    with Server(wsgi, Config("guest_site:app", port=0, access_log=False)) as server:
        assert fetch(server.url).text == "wsgi /"
    with Server(port=0) as server:
        assert "duckfast" in fetch(server.url).text
    with pytest.raises(TypeError, match="twice"):
        Server(config, config)


def test_access_lines_reach_a_standard_output_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = io.StringIO()
    monkeypatch.setattr(sys, "stdout", notebook)
    with Server(wsgi, port=0, access_log=True) as server:
        assert fetch(server.url).status == 200
    assert '"GET / HTTP/1.1" 200' in notebook.getvalue()


def test_several_servers_in_one_process() -> None:
    apps = [Guest("first"), wsgi, Guest("second"), wsgi]
    servers = [Server(app, port=0, threads=number).start() for number, app in enumerate(apps, 1)]
    try:
        assert len({server.url for server in servers}) == 4
        assert [fetch(server.url).text for server in servers] == ["first /", "wsgi /", "second /", "wsgi /"]
    finally:
        for server in servers:
            server.stop()
        for server in servers:
            assert server.join()


def test_start_raises_what_prevents_it() -> None:
    with Server(wsgi, port=0) as server, pytest.raises(BindError, match="in use"):
        Server(wsgi, bind=[server.url.removeprefix("http://")]).start()
    with pytest.raises(ImportFailure, match="no_such_module"):
        Server("no_such_module:app", port=0).start()
    with pytest.raises(LifespanFailure, match="no luck"):
        Server(Guest(fail="startup"), port=0).start()
    with pytest.raises(ConfigError, match="ssl-certfile"):
        Server(wsgi, port=0, ssl_keyfile="key.pem").start()


def test_failed_start_leaves_the_address_free() -> None:
    app = Guest(fail="startup")
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    with pytest.raises(LifespanFailure):
        Server(app, port=port).start()
    with Server(wsgi, port=port) as server:
        assert fetch(server.url).status == 200


def test_ready_is_called_once_before_start_returns() -> None:
    calls: list[str] = []
    server = Server(wsgi, port=0, ready=lambda: calls.append(server.url))
    with server:
        assert calls == [server.url]
        fetch(server.url)
    assert len(calls) == 1


@pytest.mark.parametrize("app", [wsgi, Guest()], ids=["wsgi", "asgi"])
def test_exception_of_ready_ends_the_server_and_is_raised_by_start(app: Any) -> None:
    def ready() -> None:
        raise ZeroDivisionError("of ready")

    server = Server(app, port=0, ready=ready)
    with pytest.raises(ZeroDivisionError, match="of ready"):
        server.start()
    assert refused(server.url)


def test_application_may_stop_its_own_server() -> None:
    def stopping(environ: dict[str, Any], start_response: Any) -> Any:
        server.stop()
        return wsgi(environ, start_response)

    server = Server(stopping, port=0).start()
    assert fetch(server.url).text == "wsgi /"
    assert server.join(30)


def test_request_in_progress_is_finished_at_the_stop() -> None:
    entered, gate = threading.Event(), threading.Event()

    def slow(environ: dict[str, Any], start_response: Any) -> Any:
        entered.set()
        gate.wait(30)
        return wsgi(environ, start_response)

    server = Server(slow, port=0).start()
    with connect(server.url) as sock:
        send_request(sock)
        assert entered.wait(30)
        server.stop()
        assert not server.join(0)
        assert server.running
        gate.set()
        assert read_answer(sock).text == "wsgi /"
    assert server.join(30)


def test_stop_without_patience_cancels() -> None:
    app = Guest()
    server = Server(app, port=0).start()
    with connect(server.url) as sock:
        send_request(sock, path="/wait")
        assert app.in_app.wait(30)
        server.stop()
        server.stop(0.0)
        assert server.join(30)
    assert app.notes == ["startup", "cancelled", "shutdown"]


def test_server_stopped_before_it_was_started_serves_nothing() -> None:
    app = Guest()
    server = Server(app, port=0)
    server.stop()
    server.start()
    assert server.join(30)
    assert not server.running
    assert app.notes == []


def test_failure_at_the_end_is_raised_by_the_block() -> None:
    with pytest.raises(LifespanFailure, match="no luck"), Server(Guest(fail="shutdown"), port=0):
        pass


def test_failure_at_the_end_does_not_hide_the_error_of_the_block() -> None:
    with pytest.raises(ZeroDivisionError), Server(Guest(fail="shutdown"), port=0):
        raise ZeroDivisionError


def test_server_runs_once() -> None:
    server = Server(wsgi, port=0)
    with pytest.raises(RuntimeError, match="no address"):
        print(server.url)
    with pytest.raises(RuntimeError, match="not started"):
        server.join()
    with server:
        pass
    with pytest.raises(RuntimeError, match="another"):
        server.start()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("pid", "x.pid"), ("user", "root"), ("umask", 0o22), ("daemon", True), ("env", ["A=1"]), ("name", "duck")],
)
def test_settings_of_the_process_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{setting} concerns the whole process"):
        Server(wsgi, port=0, **{setting: value}).start()


@pytest.mark.parametrize(("setting", "value"), [("workers", 2), ("reload", True), ("limit_max_requests", 3)])
def test_settings_of_a_supervisor_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{setting}: .*duckfast.run\(\)"):
        Server(wsgi, **{setting: value})


def test_unix_socket_and_tcp_at_once(tmp_path: Path) -> None:
    path = tmp_path / "guest.sock"
    with Server(wsgi, bind=[f"unix:{path}", "127.0.0.1:0"]) as server:
        assert server.addresses[0] == f"unix:{path}"
        assert server.url == server.addresses[1]
        assert [fetch(address).text for address in server.addresses] == ["wsgi /", "wsgi /"]
    assert not path.exists()


def test_url_is_one_that_a_client_on_this_machine_can_use() -> None:
    with Server(wsgi, host="0.0.0.0", port=0) as server:
        assert server.addresses[0].startswith("http://0.0.0.0:")
        assert server.url.startswith("http://127.0.0.1:")
        assert fetch(server.url).status == 200


@pytest.mark.parametrize("app", [wsgi, Guest()], ids=["wsgi", "asgi"])
def test_https_and_new_certificates(app: Any, authority: Authority) -> None:
    certificate, key = authority.server("localhost", "127.0.0.1")
    with Server(app, port=0, ssl_certfile=certificate, ssl_keyfile=key) as server:
        assert server.url.startswith("https://")
        assert fetch(server.url).status == 200
        assert server.reload_tls()
        assert fetch(server.url).status == 200


# Lines of requests ----------------------------------------------------------------------------------------------------


def test_access_lines_do_not_go_to_the_programs_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    with Server(wsgi, port=0) as server:
        fetch(server.url)
    assert capfd.readouterr().out == ""


def test_access_lines_go_to_stdout_when_that_is_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    with Server(wsgi, port=0, access_log=True) as server:
        fetch(server.url, "/asked")
    assert '"GET /asked HTTP/1.1" 200' in capfd.readouterr().out


def test_access_lines_go_to_a_file_that_can_be_opened_anew(tmp_path: Path) -> None:
    path, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    with Server(wsgi, port=0, access_log_file=str(path)) as server:
        fetch(server.url, "/first")
        path.rename(moved)
        server.reopen_logs()
        fetch(server.url, "/second")
    assert "/second" in path.read_text()


def test_access_lines_go_to_the_programs_handlers() -> None:
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("duckfast.access"), Collect()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with Server(wsgi, port=0) as server:
            fetch(server.url, "/handled")
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
    assert any("/handled" in line for line in lines)


def test_public_names_are_there_and_others_are_not() -> None:
    for name in duckfast.__all__:
        assert getattr(duckfast, name) is not None
        assert name in dir(duckfast)
    with pytest.raises(AttributeError, match="no_such_name"):
        print(duckfast.no_such_name)

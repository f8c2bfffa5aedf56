"""What gunicorn's settings become. The Config is gunicorn's own."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.config import Config as GunicornConfig

from duckfast import gunicorn_settings
from duckfast.exceptions import ConfigError
from duckfast.gunicorn_settings import translate, without_effect


def configure(**values: Any) -> GunicornConfig:
    cfg = GunicornConfig()
    for name, value in values.items():
        cfg.set(name, value)
    return cfg


def test_defaults_are_gunicorns() -> None:
    config = translate(configure(), "wsgi", {})
    assert (config.threads, config.limit_connections, config.timeout_keep_alive) == (1, 1000, 2.0)
    assert (config.limit_request_line, config.limit_request_fields, config.limit_request_field_size) == (4094, 100, 8190)
    assert config.limit_request_head >= 4094 + 100 * 8190  # what passes the three is not refused by ours
    assert (config.proxy_protocol, config.root_path, config.is_supervised) == ("off", "", False)
    assert not list(without_effect(configure(), "wsgi")) and not list(without_effect(configure(), "asgi"))


def test_what_is_set_is_honoured() -> None:
    cfg = configure(
        threads=7, worker_connections=20, keepalive=65, graceful_timeout=60, workers=3, limit_request_line=100,
        limit_request_fields=5, limit_request_field_size=200,
    )  # fmt: skip
    config = translate(cfg, "wsgi", {})
    assert (config.threads, config.limit_connections, config.timeout_keep_alive) == (7, 20, 65.0)
    assert (config.limit_request_line, config.limit_request_fields, config.limit_request_field_size) == (100, 5, 200)
    assert config.timeout_graceful_shutdown == 59.0  # gunicorn kills at 60
    assert config.is_supervised  # wsgi.multiprocess


def test_no_limit_of_gunicorns_is_the_largest_of_ours() -> None:
    config = translate(configure(limit_request_line=0, limit_request_field_size=0, limit_request_fields=100000), "wsgi", {})
    assert config.limit_request_line == config.limit_request_field_size == config.limit_request_head == 1 << 20
    assert config.limit_request_fields == 32768


@pytest.mark.parametrize(
    ("value", "word"), [(True, "v1"), (False, "off"), ("off", "off"), ("v1", "v1"), ("v2", "v2"), ("auto", "auto")]
)
def test_proxy_protocol_is_a_bool_or_a_word(value: Any, word: str) -> None:
    class Old:
        proxy_protocol = value

    assert gunicorn_settings.proxy_protocol(Old()) == word


def test_peers_on_unix_sockets_are_always_trusted() -> None:
    cfg = configure(forwarded_allow_ips="10.0.0.1, 10.0.0.2", proxy_allow_ips="*")
    config = translate(cfg, "wsgi", {})
    assert config.forwarded_allow_ips == ["10.0.0.1", "10.0.0.2", "unix"]
    assert config.proxy_allow_from == ["*", "unix"]


def test_what_gunicorn_has_no_setting_for_comes_from_the_environment() -> None:
    environment = {"DUCKFAST_TIMEOUT_REQUEST": "20s", "DUCKFAST_THREADS": "9", "SCRIPT_NAME": "/shop"}
    config = translate(configure(), "wsgi", environment)
    assert (config.timeout_request, config.threads, config.root_path, config.root_path_mode) == (20.0, 1, "/shop", "set")


def test_a_variable_that_gunicorns_setting_overrules_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUCKFAST_THREADS", "9")
    monkeypatch.setenv("DUCKFAST_TIMEOUT_REQUEST", "20s")
    assert list(without_effect(configure(), "wsgi")) == ["DUCKFAST_THREADS has no effect here: gunicorn's settings decide"]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("wsgi", "permit_obsolete_folding", True),
        ("wsgi", "casefold_http_method", True),
        ("wsgi", "header_map", "dangerous"),
        ("wsgi", "sendfile", False),
        ("asgi", "threads", 4),
    ],
)
def test_a_setting_without_effect_is_told(kind: str, name: str, value: Any) -> None:
    lines = list(without_effect(configure(**{name: value}), kind))
    assert len(lines) == 1 and lines[0].startswith(name)


def test_the_protocol_of_uwsgi_is_refused() -> None:
    class WithProtocol:
        protocol = "uwsgi"

    with pytest.raises(ConfigError, match="--protocol uwsgi"):
        translate(WithProtocol(), "wsgi", {})

"""Settings of the class API: names, values, and what they become."""

from __future__ import annotations

import ssl

import pytest

from duckfast.exceptions import ConfigError
from duckfast.httpd import Settings
from duckfast.httpd.settings import DEFAULTS, make_config, tls_settings


def test_settings_are_read_and_written_as_items_and_attributes() -> None:
    settings = Settings(KEEP_ALIVE_TIMEOUT=5)
    assert settings["KEEP_ALIVE_TIMEOUT"] == settings.KEEP_ALIVE_TIMEOUT == 5
    settings.REQUEST_TIMEOUT = 3
    assert settings["REQUEST_TIMEOUT"] == 3
    del settings["REQUEST_TIMEOUT"]
    assert settings.REQUEST_TIMEOUT == DEFAULTS["REQUEST_TIMEOUT"] == 10
    assert dict(settings).keys() == DEFAULTS.keys()
    assert repr(settings) == "Settings(KEEP_ALIVE_TIMEOUT=5)"


def test_a_misspelled_name_is_told_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'KEEP_ALIVE_TIMEOUT'"):
        Settings(KEEP_ALIVE_TIME=5)
    settings = Settings()
    with pytest.raises(ConfigError):
        settings.KEEPALIVE = 1
    with pytest.raises(AttributeError):
        _ = settings.KEEPALIVE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEEP_ALIVE_TIMEOUT", "5"),
        ("REQUEST_TIMEOUT", -1),
        ("ASYNC_HANDLING", "yes"),
        ("ASYNC_LOOP", "trio"),
        ("REQUEST_HANDLING_TASK_EXECUTOR", object()),
        ("SERVER_POLL", True),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        Settings(**{name: value})


def test_settings_become_the_engines() -> None:
    made = make_config(
        Settings(
            KEEP_ALIVE_TIMEOUT=2,
            REQUEST_TIMEOUT=3,
            REQUEST_STREAM_TIMEOUT=4,
            SEND_TIMEOUT=5,
            REQUESTS_BACKLOG=6,
            DATA_UPLOAD_MAX_SIZE=7,
            FILE_UPLOAD_MAX_SIZE=8,
            ASYNC_LOOP="asyncio",
            DEBUG=True,
        ),
        logs=False,
        threads=None,
        tls={},
    )
    assert (made.timeout_keep_alive, made.timeout_request_headers, made.timeout_request_body) == (2.0, 3.0, 4.0)
    assert (made.timeout_write, made.backlog, made.limit_request_body) == (5.0, 6, 8)
    assert (made.loop, made.access_log, made.threads, made.log_level) == ("asyncio", False, None, "debug")


def test_any_other_connection_mode_closes_after_each_response() -> None:
    made = make_config(Settings(CONNECTION_MODE="close"), logs=True, threads=1, tls={})
    assert made.timeout_keep_alive == 0


def test_without_a_bound_for_either_kind_of_upload_there_is_none() -> None:
    made = make_config(Settings(DATA_UPLOAD_MAX_SIZE=None), logs=True, threads=1, tls={})
    assert made.limit_request_body is None


def test_what_a_server_needs_is_taken_out_of_a_whole_settings_module() -> None:
    settings = Settings.from_duck(
        {
            "KEEP_ALIVE_TIMEOUT": 9,
            "TEMPLATE_DIRS": ["x"],
            "ASYNC_LOOP": None,
            "REQUEST_HANDLING_TASK_EXECUTOR": "some.module.Class",
            "REQUEST_STREAM_TIMEOUT": 0.001,
        }
    )
    assert settings.KEEP_ALIVE_TIMEOUT == 9
    assert settings.REQUEST_HANDLING_TASK_EXECUTOR is None
    assert settings.REQUEST_STREAM_TIMEOUT == Settings().REQUEST_STREAM_TIMEOUT


def test_tls_parameters_become_the_engines() -> None:
    made = tls_settings(
        {"certfile": "c.pem", "keyfile": "k.pem", "version": ssl.PROTOCOL_TLS_SERVER, "ca_certs": "ca.pem", "ciphers": "HIGH"},
        Settings(),
    )
    assert made == {
        "ssl_certfile": ["c.pem"],
        "ssl_keyfile": ["k.pem"],
        "ssl_min_version": "1.2",
        "ssl_ca_certs": "ca.pem",
        "ssl_ciphers": "HIGH",
    }


def test_without_tls_parameters_the_settings_give_the_certificate() -> None:
    settings = Settings(SSL_CERTFILE_LOCATION="c.pem", SSL_PRIVATE_KEY_LOCATION="k.pem")
    assert tls_settings(None, settings) == {"ssl_certfile": ["c.pem"], "ssl_keyfile": ["k.pem"], "ssl_min_version": "1.2"}


@pytest.mark.parametrize(
    ("params", "match"),
    [({}, "certificate"), ({"certfile": "c", "cert": 1}, "'cert'"), ({"certfile": "c", "version": -5}, "version")],
)
def test_tls_parameters_that_cannot_be_used_are_told(params: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        tls_settings(params, Settings())

"""config.py: the table of settings, and reading it from keywords and the environment."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from duckfast.config import GROUPS, SETTINGS, Config, misspelled_environment, nearest_setting, read_environment
from duckfast.exceptions import ConfigError


def read(name: str, value: object) -> Any:
    return getattr(Config(**{name: value}), name)


def refusal(**settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("row", SETTINGS.values(), ids=SETTINGS)
def test_default_is_what_its_own_kind_reads_back(row: Any) -> None:
    assert row.kind.read(row.default) == row.default
    if row.default not in ("", [], None) or row.kind.show(row.default):
        assert row.kind.read(row.kind.show(row.default)) == row.default


@pytest.mark.parametrize("row", SETTINGS.values(), ids=SETTINGS)
def test_row_is_complete(row: Any) -> None:
    assert row.group in GROUPS
    assert row.help.endswith((".", ")"))
    assert all(flag.startswith("-") for flag in (*row.flags, *row.aliases))


def test_no_spelling_belongs_to_two_settings() -> None:
    spellings = [flag for row in SETTINGS.values() for flag in (*row.flags, *row.aliases)]
    assert len(spellings) == len(set(spellings))


def test_defaults_have_the_types_that_config_declares() -> None:
    hints = get_type_hints(Config)
    assert hints.keys() == SETTINGS.keys()
    config = Config()
    for name in SETTINGS:
        if hints[name] in (str, int, bool, float):
            assert type(getattr(config, name)) is hints[name]


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("10s", 10), ("500ms", 0.5), ("2m", 120), ("1h", 3600), (".5", 0.5), (7, 7), (0.25, 0.25)]
)
def test_duration_reads_its_units(text: object, seconds: float) -> None:
    value = read("timeout_write", text)
    assert value == seconds
    assert type(value) is float


@pytest.mark.parametrize("text", ["", "s", "-1", "10 minutes", "nan", "inf", "1e3", -1, 0, True, None, float("nan"), "\u0661"])
def test_duration_refuses_what_is_no_time(text: object) -> None:
    assert refusal(timeout_write=text).startswith("timeout_write must be a time above 0, such as 10s")


@pytest.mark.parametrize(
    ("text", "size"),
    [("8190", 8190), ("64k", 65536), ("64K", 65536), ("10m", 10 * 1024**2), ("1g", 1024**3), ("2KiB", 2048), (5, 5)],
)
def test_size_reads_its_units(text: object, size: int) -> None:
    assert read("limit_request_head", text) == size


@pytest.mark.parametrize("text", ["", "k", "1.5m", "-1", "10x", 1.5, True, 0])
def test_size_refuses_what_is_no_number_of_bytes(text: object) -> None:
    assert "64k" in refusal(limit_request_head=text)


@pytest.mark.parametrize(("name", "word"), [("threads", "auto"), ("limit_connections", "none"), ("limit_request_body", "NONE")])
def test_missing_number_has_a_word(name: str, word: str) -> None:
    assert read(name, word) is None
    assert read(name, None) is None
    assert read(name, "3") == 3


@pytest.mark.parametrize(
    ("word", "value"), [("1", True), ("true", True), ("Yes", True), ("on", True), ("0", False), ("FALSE", False), ("off", False)]
)
def test_switch_reads_the_usual_words(word: str, value: bool) -> None:
    assert read("access_log", word) is value


def test_switch_refuses_other_words() -> None:
    assert refusal(access_log="maybe") == "access_log must be true or false; got 'maybe'"


def test_choice_is_case_insensitive_and_knows_uvicorns_word() -> None:
    assert read("log_level", "INFO") == "info"
    assert read("interface", "asgi3") == "asgi"


def test_wrong_choice_is_answered_with_the_choices_and_the_nearest() -> None:
    assert refusal(loop="uvlop") == "loop must be auto, uvloop or asyncio; got 'uvlop', did you mean 'uvloop'?"


@pytest.mark.parametrize("port", ["abc", -1, 65536, "8000 9000", True, 80.0])
def test_port_refuses_what_is_no_port(port: object) -> None:
    assert refusal(port=port).startswith("port must be a whole number from 0 to 65535; got ")


def test_binds_are_a_list_or_text_with_separators() -> None:
    assert read("bind", ["a:1", "b:2"]) == ["a:1", "b:2"]
    assert read("bind", "a:1, b:2 c:3") == ["a:1", "b:2", "c:3"]


def test_header_fields_are_text_pairs_or_a_mapping() -> None:
    assert read("headers", ["X-A: b: c", ("X-B", " d ")]) == [("X-A", "b: c"), ("X-B", "d")]
    assert read("headers", {"X-A": "b"}) == [("X-A", "b")]
    assert read("headers", [(b"x-a", b"b")]) == [("x-a", "b")]
    assert read("headers", "X-A: b, c\nX-B: d; e") == [("X-A", "b, c"), ("X-B", "d; e")]


@pytest.mark.parametrize(
    "field",
    ["X-A", "X A: b", ": b", "X-A: b\nX-B: c", "X-A: b\x00", "X-A: \u20ac", "Content-Length: 3", "upgrade: x", ("a", 1)],
)
def test_header_field_that_would_break_answers_is_refused(field: object) -> None:
    message = refusal(headers=[field])
    assert message.startswith("headers must be a header field")
    assert message.endswith(f"got {field!r}")


def test_unknown_keyword_is_answered_with_the_nearest() -> None:
    assert refusal(prot=80) == "there is no setting 'prot'; did you mean 'port'?"
    assert "`duckfast --help`" in refusal(frobnicate=1)


def test_other_servers_names_lead_to_ours() -> None:
    assert nearest_setting("worker_connections") == "limit_connections"
    assert nearest_setting("--graceful-timeout") == "timeout_graceful_shutdown"


def test_target_may_be_text_an_application_or_nothing() -> None:
    assert Config("module:app").app == "module:app"
    assert Config(app=print).app is print
    assert Config().app is None
    assert refusal(app="  ").startswith("app must be a target")
    assert refusal(app=3).startswith("app must be a target")


def test_configs_share_no_lists() -> None:
    Config().bind.append("a:1")
    assert Config().bind == []


def test_config_can_be_copied_with_changes() -> None:
    config = dataclasses.replace(Config("a:b", port=1), port=2)
    assert (config.app, config.port) == ("a:b", 2)


def test_environment_names_follow_the_settings() -> None:
    environment = {"DUCKFAST_PORT": "1", "DUCKFAST_TIMEOUT_KEEP_ALIVE": "2m", "DUCKFAST_HOST": "", "PORT": "3"}
    assert read_environment(environment) == {"port": 1, "timeout_keep_alive": 120.0}


def test_bad_environment_value_names_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"^DUCKFAST_PORT must be a whole number .*; got 'x'$"):
        read_environment({"DUCKFAST_PORT": "x"})


def test_trusted_peers_are_addresses_networks_and_two_words() -> None:
    assert Config().forwarded_allow_ips == Config().proxy_allow_from == ["127.0.0.1", "::1", "unix"]
    assert Config(forwarded_allow_ips="10.0.0.0/8,fd00::/8 UNIX,*").forwarded_allow_ips == ["10.0.0.0/8", "fd00::/8", "unix", "*"]
    assert Config(forwarded_allow_ips=[]).forwarded_allow_ips == []
    for wrong in ("localhost", "10.0.0.1/8", "1.2.3", "fe80::1%eth0", ["a"], 5, {"a": "b"}, [None]):
        with pytest.raises(ConfigError, match="forwarded_allow_ips must be an address"):
            Config(forwarded_allow_ips=wrong)


def test_modes_read_what_other_servers_have_as_switches() -> None:
    assert Config().proxy_headers == "client"
    assert Config(proxy_headers=True).proxy_headers == "x-forwarded"
    assert Config(proxy_headers=False).proxy_headers == "off"
    assert Config(proxy_protocol=True).proxy_protocol == "auto"
    assert Config(proxy_protocol="V2").proxy_protocol == "v2"
    with pytest.raises(ConfigError, match="did you mean 'forwarded'"):
        Config(proxy_headers="forwardd")


def test_root_path_begins_with_a_slash_and_does_not_end_with_one() -> None:
    assert Config(root_path="/a/b/").root_path == "/a/b"
    assert Config(root_path="/").root_path == ""
    with pytest.raises(ConfigError, match="root_path must be a path that begins with /"):
        Config(root_path="a")


def test_misspelled_environment_name_is_noticed_and_strangers_are_not() -> None:
    environment = {"DUCKFAST_PROT": "1", "DUCKFAST_PORT": "1", "DUCKFAST_UNRELATED_THING": "1", "PROT": "1"}
    assert misspelled_environment(environment) == {"DUCKFAST_PROT": "DUCKFAST_PORT"}

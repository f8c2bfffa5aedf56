"""PEP 3333, the iterable: framing, flushing, close(), file_wrapper, failures, clients that leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.probe import Probe, StartProbe, literal

SHAPES = ["list", "tuple", "generator", "closing"]


@pytest.mark.parametrize("shape", ["list", "tuple"])
def test_single_block_gets_a_content_length(wsgi: Probe, shape: str) -> None:
    response = wsgi.ask("send_response", parts="hello", **{"as": shape})
    assert (response.framing, response.get("content-length"), response.body) == ("length", b"5", b"hello")


def test_iterable_that_says_it_has_one_block_gets_a_content_length(wsgi: Probe, key: str) -> None:
    response = wsgi.ask("send_length_one", key)
    assert (response.framing, response.get("content-length"), response.body) == ("length", b"5", b"hello")
    assert wsgi.wait_for_notes(key) == ["closed"]


@pytest.mark.parametrize("shape", SHAPES)
def test_several_blocks_are_whole_and_the_connection_goes_on(wsgi: Probe, shape: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_response", parts="one|two|three", **{"as": shape}))
        response = wire.read_response()
        assert response.framing in ("chunked", "length") and response.body == b"onetwothree"
        assert not response.closes
        wire.send(wsgi.request("echo"))
        assert wire.read_response().status == 200


@pytest.mark.parametrize("shape", ["generator", "closing"])
def test_blocks_of_unknown_number_are_chunked_one_by_one(wsgi: Probe, shape: str) -> None:
    response = wsgi.ask("send_response", parts="one|two|three", **{"as": shape})
    assert response.chunks == [b"one", b"two", b"three"]


@pytest.mark.parametrize("shape", SHAPES)
def test_http10_client_is_answered_without_chunks(wsgi: Probe, shape: str) -> None:
    with wsgi.connect() as wire:
        keep = [("Connection", "keep-alive")]
        wire.send(wsgi.request("send_response", parts="one|two", version="1.0", headers=keep, **{"as": shape}))
        response = wire.read_response()
        assert response.framing in ("close", "length") and response.body == b"onetwo"
        if response.framing == "close":
            assert response.closes
            wire.expect_clean_end()


def test_http10_keep_alive_is_confirmed_when_the_length_is_known(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        for _ in range(2):
            wire.send(wsgi.request("send_response", parts="hello", version="1.0", headers=[("Connection", "keep-alive")]))
            response = wire.read_response()
            assert (response.framing, response.closes) == ("length", False)


def test_content_length_of_the_app_is_used(wsgi: Probe) -> None:
    response = wsgi.ask("send_response", parts="one|two", field="Content-Length=6", **{"as": "generator"})
    assert (response.framing, response.body) == ("length", b"onetwo")


def test_empty_iterable_is_an_empty_body(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_nothing"))
        response = wire.read_response()
        assert (response.status, response.body, response.framing) == (200, b"", "length")
        wire.send(wsgi.request("echo"))
        assert wire.read_response().status == 200


def test_empty_blocks_never_end_a_chunked_body(wsgi: Probe, key: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_empty_blocks", key))
        assert wire.read_response().chunks == [b"one", b"two"]
        wire.send(wsgi.request("echo"))
        assert wire.read_response().status == 200
    assert wsgi.notes(key) == ["closed"]


def test_connection_close_of_the_app_is_honoured(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_response", parts="ok", field="Connection=close"))
        response = wire.read_response()
        assert (response.status, response.closes) == (200, True)
        wire.expect_clean_end()


@pytest.mark.parametrize("parts", ["12345|67890", "1234567890", "1234|567890"])
@pytest.mark.parametrize("shape", ["list", "closing"])
def test_more_than_content_length_never_leaves(wsgi: Probe, key: str, parts: str, shape: str) -> None:
    with wsgi.connect() as wire:
        close = [("Connection", "close")]
        wire.send(wsgi.request("send_response", key, parts=parts, field="Content-Length=5", headers=close, **{"as": shape}))
        head = wire.read_head()
        rest = wire.read_rest()
    assert b"6" not in rest
    assert head.status == 500 or b"12345".startswith(rest)
    if shape == "closing":
        assert wsgi.wait_for_notes(key) == ["closed"]


@pytest.mark.parametrize("parts", ["123", "1|23", ""])
@pytest.mark.parametrize("shape", ["list", "closing"])
def test_less_than_content_length_breaks_the_connection(wsgi: Probe, key: str, parts: str, shape: str) -> None:
    with wsgi.connect() as wire:
        data = wsgi.request("send_response", key, parts=parts, field="Content-Length=5", **{"as": shape})
        wire.send(data + wsgi.request("echo"))
        response = wire.read_broken_response()
        assert response.get("content-length") == b"5"
        assert b"123".startswith(response.body)
    if shape == "closing":
        assert wsgi.wait_for_notes(key) == ["closed"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("field", ["", "Content-Length=5"])
def test_head_sends_no_body_and_closes_the_iterable_once(wsgi: Probe, key: str, field: str, shape: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_response", key, method="HEAD", parts="he|llo", field=field, **{"as": shape}))
        response = wire.read_response("HEAD")
        if field:
            assert response.get("content-length") == b"5"
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"
    if shape == "closing":
        assert wsgi.wait_for_notes(key) == ["closed"]


def test_head_of_a_single_block_has_the_length_of_get(wsgi: Probe) -> None:
    assert wsgi.ask("send_response", method="HEAD", parts="hello").get("content-length") == b"5"


def test_head_of_an_empty_list_does_not_claim_a_length_of_zero_unless_get_would(wsgi: Probe) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_response", method="HEAD", parts="", field="Content-Length=1234"))
        assert wire.read_response("HEAD").get("content-length") == b"1234"
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("parts", ["", "hello", "he|llo"])
@pytest.mark.parametrize("field", ["", "Content-Length=5"])
def test_204_and_304_have_no_body(wsgi: Probe, status: str, parts: str, field: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_response", status=status, parts=parts, field=field))
        response = wire.read_response()
        assert response.status == int(status[:3])
        assert response.all("transfer-encoding") == []
        if response.status == 204:
            assert response.all("content-length") == []
        elif field:
            assert response.get("content-length") == b"5"
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_large_stream_is_whole(wsgi: Probe) -> None:
    pieces = 4000  # of 4 KiB
    body = wsgi.ask("stream", pieces=str(pieces)).body
    assert body == b"".join(b"%08d" % number * 512 for number in range(pieces))


def test_large_stream_to_a_slow_reader_is_whole(wsgi: Probe) -> None:
    with wsgi.connect(receive_buffer=4096) as wire:
        wire.send(wsgi.request("stream", pieces="1000"))
        assert wire.read_response().body == b"".join(b"%08d" % number * 512 for number in range(1000))


# Flushing and back-pressure


def test_each_block_is_on_its_way_before_the_next_is_asked_for(threaded_wsgi: Probe, key: str) -> None:
    probe = threaded_wsgi
    with probe.connect() as wire:
        wire.send(probe.request("flush_each_block", key))
        assert wire.read_head().status == 200
        assert wire.read_chunk() == b"first"
        probe.wait_for_notes(key, 1)
        probe.open_gate(key)
        assert (wire.read_chunk(), wire.read_chunk()) == (b"second", b"")


def test_iterable_waits_for_a_client_that_does_not_read(threaded_wsgi: Probe, key: str) -> None:
    probe, pieces = threaded_wsgi, 4096  # of 64 KiB: 256 MiB, far beyond what kernel buffers take
    with probe.connect(receive_buffer=8192) as wire:
        wire.send(probe.request("send_until_blocked", key, pieces=str(pieces)))
        probe.wait_for_notes(key, 1)
        assert probe.wait_until_stalled(key) * 65536 < 32 * 1024 * 1024
        assert wire.read_head().status == 200
        size = 0
        while chunk := wire.read_chunk():
            size += len(chunk)
        assert size == pieces * 65536
    assert probe.wait_for_notes(key, 2) == [pieces, "finished"]


# close()


@pytest.mark.parametrize("parts", ["hello", "he|llo", ""])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_close_is_called_once_after_the_response(wsgi: Probe, key: str, parts: str, version: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_response", key, parts=parts, version=version, **{"as": "closing"}))
        assert wire.read_response().status == 200
    assert wsgi.wait_for_notes(key) == ["closed"]
    assert wsgi.notes(key) == ["closed"]


@pytest.mark.parametrize("scenario", ["raise_in_first_step", "raise_in_body"])
def test_close_is_called_once_when_the_iteration_fails(wsgi: Probe, key: str, scenario: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request(scenario, key))
        wire.read_rest()
    assert wsgi.wait_for_notes(key) == ["closed"]
    assert wsgi.notes(key) == ["closed"]


def test_close_is_called_once_when_the_client_leaves(threaded_wsgi: Probe, key: str) -> None:
    probe = threaded_wsgi
    wire = probe.connect()
    wire.send(probe.request("stream_until_gone", key))
    wire.read_head()
    wire.reset()
    assert probe.wait_for_notes(key) == ["closed"]
    assert probe.notes(key) == ["closed"]


def test_close_that_raises_is_logged_after_a_whole_response(wsgi: Probe, key: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("raise_in_close", key))
        head = wire.read_head()
        assert head.status == 200 and wire.read_chunk() == b"one" and wire.read_chunk() == b"two"
    wsgi.server.wait_for_stderr("secret-in-close")
    assert wsgi.notes(key) == ["closed"]


# Failures


@pytest.mark.parametrize("scenario", ["raise_before_start", "raise_after_start", "raise_in_first_step"])
def test_exception_before_the_head_left_is_a_500_without_details(wsgi: Probe, scenario: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request(scenario))
        response = wire.read_response()
    assert response.status == 500
    assert response.all("x-started") == []
    assert b"secret" not in response.body and b"Traceback" not in response.body
    wsgi.server.wait_for_stderr("secret-" + scenario.removeprefix("raise_").replace("_", "-"))


@pytest.mark.parametrize("length", ["", "1000"])
def test_exception_inside_the_body_is_a_visible_break(wsgi: Probe, key: str, length: str) -> None:
    with wsgi.connect() as wire:
        data = wsgi.request("raise_in_body", key, **({"length": length} if length else {}))
        wire.send(data + wsgi.request("echo"))
        assert wire.read_broken_response().body == b"some of it"
    wsgi.server.wait_for_stderr("secret-in-body")
    assert wsgi.wait_for_notes(key) == ["closed"]


@pytest.mark.parametrize("case", ["str", "int", "None", "list"])
def test_block_that_is_not_bytes_is_an_error(wsgi: Probe, key: str, case: str) -> None:
    assert wsgi.ask("send_bad_block", key, case=case).status == 500
    assert wsgi.wait_for_notes(key) == ["closed"]


@pytest.mark.parametrize("case", ["str", "int", "None"])
def test_block_that_is_not_bytes_breaks_a_begun_response(wsgi: Probe, key: str, case: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_bad_block", key, case=case, late="1"))
        assert wire.read_broken_response().body == b"one"
    assert wsgi.wait_for_notes(key) == ["closed"]


@pytest.mark.parametrize("case", ["None", "int", "str"])
def test_result_that_is_no_iterable_of_bytes_is_a_500(wsgi: Probe, case: str) -> None:
    assert wsgi.ask("return_bad_iterable", case=case).status == 500


def test_bytes_instead_of_a_list_is_served_or_refused_but_never_garbled(wsgi: Probe) -> None:
    response = wsgi.ask("return_bytes")
    assert response.status == 500 or response.body == b"text"


def test_client_that_left_is_not_an_error_of_the_app(start_wsgi: StartProbe, key: str) -> None:
    probe = start_wsgi("--threads", "4")
    wire = probe.connect()
    wire.send(probe.request("stream_until_gone", key))
    wire.read_head()
    wire.reset()
    probe.wait_for_notes(key)
    probe.ask("raise_before_start")
    probe.server.wait_for_stderr("secret-before-start")
    assert probe.server.stderr_text().count("Traceback") == 1


def test_half_closed_client_gets_its_answer(threaded_wsgi: Probe, key: str) -> None:
    probe = threaded_wsgi
    with probe.connect() as wire:
        wire.send(probe.request("wait_at_gate", key))
        wire.half_close()
        probe.wait_for_notes(key, 1)
        probe.open_gate(key)
        assert literal(wire.read_response()) == "opened"
        wire.expect_clean_end()


# wsgi.file_wrapper

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "small.bin"
    path.write_bytes(b"abcdefghij")
    return path


@pytest.mark.parametrize("scenario", ["send_file", "send_real_file"])
@pytest.mark.parametrize("length", ["", str(len(CONTENT))])
def test_file_wrapper_sends_the_whole_file(wsgi: Probe, key: str, large_file: Path, length: str, scenario: str) -> None:
    more = {"length": length} if length else {}
    with wsgi.connect() as wire:
        wire.send(wsgi.request(scenario, key, file=str(large_file), **more))
        assert wire.read_response().body == CONTENT
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"
    if scenario == "send_file":
        assert wsgi.wait_for_notes(key) == ["closed"]


@pytest.mark.parametrize("scenario", ["send_file", "send_real_file"])
@pytest.mark.parametrize("offset, length, body", [("3", "", b"defghij"), ("3", "4", b"defg"), ("0", "0", b""), ("10", "", b"")])
def test_file_wrapper_starts_at_the_current_offset_and_obeys_content_length(
    wsgi: Probe, small_file: Path, scenario: str, offset: str, length: str, body: bytes
) -> None:
    more = {"length": length} if length else {}
    with wsgi.connect() as wire:
        wire.send(wsgi.request(scenario, file=str(small_file), offset=offset, **more))
        assert wire.read_response().body == body
        wire.send(wsgi.request("echo"))
        assert wire.read_response().status == 200


@pytest.mark.parametrize("buffering", ["-1", "0"])
def test_file_wrapper_does_not_trust_the_descriptor_of_a_buffered_file(wsgi: Probe, small_file: Path, buffering: str) -> None:
    """A buffered reader's descriptor stands further on than the file object: the object's position counts."""
    response = wsgi.ask("send_real_file", file=str(small_file), preread="2", buffering=buffering)
    assert response.body == b"cdefghij"


def test_file_shorter_than_content_length_breaks_the_connection(wsgi: Probe, small_file: Path, key: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_file", key, file=str(small_file), length="11"))
        assert b"abcdefghij".startswith(wire.read_broken_response().body)
    assert wsgi.wait_for_notes(key) == ["closed"]


def test_file_wrapper_answers_head_without_the_file(wsgi: Probe, small_file: Path, key: str) -> None:
    with wsgi.connect() as wire:
        wire.send(wsgi.request("send_file", key, method="HEAD", file=str(small_file), length="10"))
        assert wire.read_response("HEAD").get("content-length") == b"10"
        wire.send(wsgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"
    assert wsgi.wait_for_notes(key) == ["closed"]


def test_file_wrapper_on_http10(wsgi: Probe, large_file: Path) -> None:
    assert wsgi.ask("send_file", file=str(large_file), version="1.0").body == CONTENT


def test_file_wrapper_to_a_slow_reader(wsgi: Probe, large_file: Path) -> None:
    with wsgi.connect(receive_buffer=4096) as wire:
        wire.send(wsgi.request("send_file", file=str(large_file), length=str(len(CONTENT))))
        assert wire.read_response().body == CONTENT


def test_file_wrapper_falls_back_for_objects_without_a_descriptor(wsgi: Probe, key: str) -> None:
    assert wsgi.ask("send_file_like", key).body == b"0123456789" * 1000
    assert wsgi.wait_for_notes(key) == ["closed"]
    assert wsgi.ask("send_bytesio").body == b"in memory"


def test_wrapped_file_wrapper_is_iterated_not_sent_as_a_file(wsgi: Probe, small_file: Path) -> None:
    assert wsgi.ask("wrap_file_wrapper", file=str(small_file)).body == b"ABCDEFGHIJ"
    assert wsgi.value("file_wrapper_unused", file=str(small_file)) == "mine"


def test_file_is_closed_when_the_client_leaves(threaded_wsgi: Probe, tmp_path: Path, key: str) -> None:
    probe = threaded_wsgi
    path = tmp_path / "sparse.bin"
    with path.open("wb") as file:
        file.truncate(512 * 1024 * 1024)  # sparse: no disk, but more than the socket takes
    wire = probe.connect(receive_buffer=4096)
    wire.send(probe.request("send_file", key, file=str(path), length=str(path.stat().st_size)))
    wire.read_head()
    wire.reset()
    assert probe.wait_for_notes(key) == ["closed"]

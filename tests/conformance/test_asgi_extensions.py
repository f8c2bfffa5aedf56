"""ASGI extensions of the HTTP protocol: pathsend, zerocopysend, trailers, early hints."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.probe import Probe

CONTENT = bytes(range(256)) * 4096  # 1 MiB: more than a socket buffer takes at once
TE_TRAILERS = [("TE", "trailers"), ("Connection", "TE")]  # RFC 9110 10.1.4: TE needs the connection option


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "small.bin"
    path.write_bytes(b"0123456789")
    return path


# pathsend


def test_pathsend_sends_the_whole_file_and_the_connection_goes_on(asgi: Probe, large_file: Path, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", key, file=str(large_file), size=str(len(CONTENT))))
        response = wire.read_response()
        assert (response.status, response.framing) == (200, "length")
        assert response.body == CONTENT
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"
    assert asgi.wait_for_notes(key) == ["sent"]


def test_pathsend_without_content_length_is_still_framed(asgi: Probe, small_file: Path) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", file=str(small_file)))
        assert wire.read_response().body == b"0123456789"
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


def test_pathsend_on_http10_is_whole(asgi: Probe, large_file: Path) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", file=str(large_file), version="1.0"))
        assert wire.read_response().body == CONTENT


def test_pathsend_of_an_empty_file(asgi: Probe, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", file=str(empty), size="0"))
        assert wire.read_response().body == b""
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


def test_pathsend_answers_head_without_the_file(asgi: Probe, large_file: Path) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", method="HEAD", file=str(large_file), size=str(len(CONTENT))))
        assert wire.read_response("HEAD").get("content-length") == b"%d" % len(CONTENT)
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_pathsend_of_a_missing_file_raises_and_is_a_500(asgi: Probe, tmp_path: Path, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", key, file=str(tmp_path / "missing"), size="10"))
        assert wire.read_response().status == 500
    (note,) = asgi.wait_for_notes(key)
    assert note[0] == "raised"


def test_pathsend_never_sends_more_than_content_length(asgi: Probe, small_file: Path) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", file=str(small_file), size="4", headers=[("Connection", "close")]))
        head = wire.read_head()
        rest = wire.read_rest()
    assert b"4" not in rest
    assert head.status == 500 or b"0123".startswith(rest)


def test_pathsend_of_a_file_shorter_than_content_length_breaks(asgi: Probe, small_file: Path) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("pathsend", file=str(small_file), size="11"))
        assert b"0123456789".startswith(wire.read_broken_response().body)


# zerocopysend


@pytest.mark.parametrize(
    "plan, body",
    [
        ("f", b"0123456789"),
        ("c4", b"0123"),
        ("o3c4", b"3456"),
        ("o7c3 o0c2", b"78901"),
        ("'head-' o2c2 '-tail'", b"head-23-tail"),
        ("o0c2 'x' o2c2 ''", b"01x23"),
        ("c4 c4", b"01234567"),
        ("c4 f", b"0123456789"),
    ],
)
@pytest.mark.parametrize("with_length", [True, False])
def test_zerocopysend_mixes_stretches_of_files_and_bodies(
    asgi: Probe, small_file: Path, key: str, plan: str, body: bytes, with_length: bool
) -> None:
    size = {"size": str(len(body))} if with_length else {}
    with asgi.connect() as wire:
        wire.send(asgi.request("zerocopysend", key, file=str(small_file), plan=plan, **size))
        assert wire.read_response().body == body
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"
    assert asgi.wait_for_notes(key) == [("closed", False)], "the application closes its file"


def test_zerocopysend_of_a_large_file_to_a_slow_reader(asgi: Probe, large_file: Path) -> None:
    with asgi.connect(receive_buffer=4096) as wire:
        wire.send(asgi.request("zerocopysend", file=str(large_file), plan="f", size=str(len(CONTENT))))
        assert wire.read_response().body == CONTENT


def test_zerocopysend_answers_head_without_the_file(asgi: Probe, small_file: Path) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("zerocopysend", method="HEAD", file=str(small_file), plan="f", size="10"))
        assert wire.read_response("HEAD").get("content-length") == b"10"
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


# trailers


def test_trailers_follow_the_last_chunk_for_a_client_that_asked(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("trailers", headers=TE_TRAILERS))
        response = wire.read_response()
        assert (response.framing, response.body) == ("chunked", b"onetwo")
        assert response.trailers == [(b"x-checksum", b"abc"), (b"x-count", b"2")]
        assert response.get("trailer") == b"x-checksum"
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


def test_response_with_trailers_ends_only_with_the_last_of_them(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("trailers", key, headers=TE_TRAILERS, gate="1"))
        wire.read_head()
        assert (wire.read_chunk(), wire.read_chunk()) == (b"one", b"two")
        asgi.wait_for_notes(key, 1)
        assert wire.buffered() == b""
        asgi.open_gate(key)
        assert wire.read_exactly(len(b"0\r\nx-checksum: abc\r\nx-count: 2\r\n\r\n")).startswith(b"0\r\n")


@pytest.mark.parametrize("headers", [[], [("TE", "gzip")], [("TE", "trailers;q=0")]])
def test_trailers_are_dropped_for_a_client_that_did_not_ask(asgi: Probe, key: str, headers: list[tuple[str, str]]) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("trailers", key, headers=headers))
        response = wire.read_response()
        assert (response.body, response.trailers) == (b"onetwo", [])
        assert asgi.wait_for_notes(key, 2) == ["body complete", "trailers sent"]
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


def test_trailers_are_dropped_on_http10(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("trailers", headers=TE_TRAILERS, version="1.0"))
        response = wire.read_response()
        assert (response.framing, response.body) == ("close", b"onetwo")


def test_trailers_are_not_sent_for_head(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("trailers", method="HEAD", headers=TE_TRAILERS))
        assert wire.read_response("HEAD").status == 200
        wire.send(asgi.request("echo", method="POST", body=b"next"))
        assert wire.read_response().body == b"next"


def test_trailer_that_would_split_the_response_is_refused(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("bad_trailers", key, headers=TE_TRAILERS))
        response = wire.read_response()
        assert (response.body, response.trailers) == (b"one", [])
    assert asgi.notes(key)[0][0] == "raised"


# early hints


def test_early_hint_is_a_103_before_the_response(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("early_hint", key, gate="1"))
        status, fields = wire.read_interim()
        assert status == 103
        assert [(name.lower(), value) for name, value in fields] == [
            (b"link", b"</a.css>; rel=preload"),
            (b"link", b"</b.js>; rel=preload"),
        ]
        asgi.open_gate(key)
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"ok")
        wire.send(asgi.request("echo"))
        assert wire.read_response().status == 200


def test_early_hint_is_not_sent_to_an_http10_client(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("early_hint", version="1.0"))
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"ok")


def test_early_hint_after_the_first_body_does_no_harm(asgi: Probe) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("late_early_hint"))
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"onetwo")


def test_early_hint_that_would_split_the_response_is_refused(asgi: Probe, key: str) -> None:
    with asgi.connect() as wire:
        wire.send(asgi.request("evil_early_hint", key))
        response = wire.read_response()
        assert (response.interim, response.body) == ([], b"ok")
    assert asgi.notes(key)[0][0] == "raised"

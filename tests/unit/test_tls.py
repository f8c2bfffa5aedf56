"""Contexts and endpoints from settings; the library found in memory. What connections do is in tests/conformance/test_tls.py."""

from __future__ import annotations

import logging
import os
import shutil
import ssl
from pathlib import Path

import pytest
from support.authority import Authority

from duckfast import Config, ConfigError, tls
from duckfast._openssl import unusable_because
from duckfast._tls import TLSEndpoint


@pytest.fixture
def config(authority: Authority) -> Config:
    certificate, key = authority.server("localhost")
    return Config(ssl_certfile=certificate, ssl_keyfile=key)


def test_this_interpreters_openssl_is_driven_directly() -> None:
    """Fails where the tests would silently use the slow way twice."""
    assert unusable_because() == ""


def test_an_endpoint_is_on_the_descriptor_unless_the_context_needs_python(config: Config, tmp_path: Path) -> None:
    def make() -> ssl.SSLContext:
        return tls.make_context(config)

    assert TLSEndpoint([(make(), ())]).io == "descriptor"
    assert TLSEndpoint([(make(), ())], io="memory").io == "memory"
    with_callback = make()
    with_callback.sni_callback = lambda connection, name, context: None
    assert TLSEndpoint([(with_callback, ())]).io == "memory"
    with pytest.raises(ValueError, match="sni_callback"):
        TLSEndpoint([(with_callback, ())], io="descriptor")
    with_log = make()
    with_log.keylog_filename = str(tmp_path / "keys")
    assert TLSEndpoint([(with_log, ())]).io == "memory"


def test_ticket_keys_have_one_size(config: Config) -> None:
    with pytest.raises(ValueError, match="80 bytes"):
        TLSEndpoint([(tls.make_context(config), ())], ticket_keys=b"short")
    with pytest.raises(ValueError, match="80 bytes"):
        tls.share_ticket_keys(b"short")
    assert tls.share_ticket_keys() == tls.share_ticket_keys()


def test_a_context_is_strict_by_default(config: Config) -> None:
    context = tls.make_context(config)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE
    assert context.options & ssl.OP_NO_RENEGOTIATION and context.options & ssl.OP_NO_COMPRESSION


def test_settings_reach_the_context(authority: Authority, config: Config) -> None:
    config.ssl_cert_reqs, config.ssl_ca_certs = "optional", str(authority.path)
    config.ssl_crl = [authority.revoke()]
    config.ssl_min_version = "1.3"
    context = tls.make_context(config)
    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert context.verify_flags & ssl.VERIFY_CRL_CHECK_LEAF
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.cert_store_stats() == {"x509": 1, "crl": 1, "x509_ca": 1}


@pytest.mark.parametrize(
    ("value", "word"), [("none", "none"), (0, "none"), (ssl.CERT_OPTIONAL, "optional"), ("2", "required"), (True, "required")]
)
def test_verification_is_a_word_or_a_number(value: object, word: str) -> None:
    assert Config(ssl_cert_reqs=value).ssl_cert_reqs == word


def test_settings_without_a_certificate_are_refused_and_nothing_is_plain_http() -> None:
    assert not tls.is_configured(Config())
    alone = {"ssl_keyfile": "k.pem", "ssl_ca_certs": "ca.pem", "ssl_reload": True, "ssl_cert_reqs": "optional"}
    for name, value in alone.items():
        with pytest.raises(ConfigError, match="give --ssl-certfile"):
            tls.is_configured(Config(**{name: value}))


def test_a_factory_must_return_a_context(config: Config) -> None:
    config.ssl_context = lambda config, default: "nothing useful"
    with pytest.raises(ConfigError, match="must return an ssl.SSLContext"):
        tls.make_keeper(config)
    made = tls.make_context(config)
    config.ssl_context = lambda config, default: made
    keeper = tls.make_keeper(config)
    assert keeper is not None and keeper.endpoint.contexts == [made]


def test_only_code_can_give_a_context() -> None:
    with pytest.raises(ConfigError, match="in code only"):
        Config(ssl_context="path/to/context")


class Applied(list[TLSEndpoint]):
    def __call__(self, endpoint: TLSEndpoint) -> None:
        self.append(endpoint)


def test_a_reload_replaces_the_endpoint_and_a_bad_file_does_not(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = authority.server("localhost")
    path = shutil.copy(certificate, tmp_path / "cert.pem")
    keeper = tls.make_keeper(Config(ssl_certfile=str(path), ssl_keyfile=key))
    assert keeper is not None
    first, applied = keeper.endpoint, Applied()
    with caplog.at_level(logging.INFO, logger="duckfast"):
        logging.getLogger("duckfast").propagate = True
        assert keeper.reload(applied)
        assert applied == [keeper.endpoint] and keeper.endpoint is not first
        second = keeper.endpoint
        Path(path).write_text("not a certificate")
        assert not keeper.reload(applied)
        os.unlink(path)
        assert not keeper.reload(applied)
    assert keeper.endpoint is second and applied == [second]
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "ERROR"]


def test_names_come_from_the_certificates(authority: Authority) -> None:
    one, other = authority.server("one.test"), authority.server("*.other.test", "third.test")
    config = Config(ssl_certfile=[one[0], other[0]], ssl_keyfile=[one[1], other[1]])
    assert [names for _, names in tls.make_entries(config)] == [("one.test",), ("*.other.test", "third.test")]

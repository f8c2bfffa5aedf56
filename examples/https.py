"""HTTPS, and clients that show a certificate. Run it:  python https.py server.pem server-key.pem [clients-ca.pem]

With the third file every client must have a certificate that this authority has issued. A new certificate in the same files is
used for new connections without a restart. To try it, with one made by  openssl req -x509 -newkey rsa:2048 -nodes -days 30
-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout server-key.pem -out server.pem :

    curl --cacert server.pem https://localhost:8443/
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import duckfast


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    tls = scope["extensions"]["tls"]  # of the ASGI TLS extension
    version = {0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}.get(tls["tls_version"], "TLS")
    body = f"Hello {tls['client_cert_name'] or 'whoever you are'}, by {version}\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    settings: dict[str, Any] = {"ssl_certfile": sys.argv[1], "ssl_keyfile": sys.argv[2], "ssl_reload": True}
    if len(sys.argv) > 3:
        settings |= {"ssl_ca_certs": sys.argv[3], "ssl_cert_reqs": "required"}
    duckfast.run(app, interface="asgi", lifespan="off", port=int(os.environ.get("PORT", "8443")), **settings)

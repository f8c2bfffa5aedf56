"""An application of the framework as people write it; nothing in it knows who serves."""

import os

from duck.app import App

app = App(
    addr="127.0.0.1",
    port=int(os.environ.get("SITE_PORT", "8000")),
    domain="localhost",
    workers=int(os.environ.get("SITE_WORKERS", "0")) or None,
)

if __name__ == "__main__":
    from web.micro import app as micro

    micro.start_server()
    app.run()

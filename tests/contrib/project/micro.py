"""A micro app as people write it."""

import os

from duck.app.microapp import MicroApp
from duck.http.response import HttpResponse


class Micro(MicroApp):
    def view(self, request, processor):
        if request.path == "/fails":
            raise RuntimeError("so asked for")
        return HttpResponse(f"micro {request.method} {request.path}", content_type="text/plain")

    async def async_view(self, request, processor):
        return self.view(request, processor)


app = Micro(addr="127.0.0.1", port=int(os.environ.get("SITE_MICRO_PORT", "8001")), domain="localhost")

"""Routes of the project."""

from duck.contrib.websockets import OpCode, WebSocketView
from duck.http.response import HttpResponse, JsonResponse, StreamingHttpResponse
from duck.urls import path


def hello(request):
    return HttpResponse("hello from duck", content_type="text/plain")


def form(request):
    return JsonResponse({"name": request.POST.get("name"), "method": request.method})


def body(request):
    return HttpResponse(request.content, content_type="application/octet-stream")


def stream(request):
    def parts():
        for number in range(5):
            yield f"part {number}\n".encode()

    return StreamingHttpResponse(parts(), content_type="text/plain")


def fails(request):
    raise RuntimeError("so asked for")


def cookie(request):
    response = HttpResponse("with a cookie")
    response.set_cookie("duck", "quack")
    return response


class Echo(WebSocketView):
    async def on_receive(self, data, opcode):
        if opcode == OpCode.TEXT:
            await self.send_text(data.decode() if isinstance(data, bytes) else data)
        else:
            await self.send_binary(data)


urlpatterns = [
    path("/", hello, name="hello"),
    path("/form", form, name="form", methods=["GET", "POST"]),
    path("/body", body, name="body", methods=["GET", "POST"]),
    path("/stream", stream, name="stream"),
    path("/fails", fails, name="fails"),
    path("/cookie", cookie, name="cookie"),
    path("/echo", Echo, name="echo"),
]

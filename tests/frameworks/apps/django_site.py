"""A Django project in one file: admin, sessions in SQLite, uploads, streams, files. `wsgi` and `asgi` are its two faces.

The database and the file to be served come from DJANGO_DATABASE and DJANGO_FILE; run as a script it is manage.py.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import AsyncIterator, Iterator

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # fast: these are not real passwords
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    STATIC_URL="static/",
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"django.request": {"handlers": ["stderr"], "level": "ERROR", "propagate": False}},
    },
    USE_TZ=True,
    FILE_UPLOAD_MAX_MEMORY_SIZE=1024 * 1024,
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.handlers.asgi import ASGIRequest  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402


def index(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"method": request.method, "path": request.path, "query": request.GET.dict()})


def counter(request: HttpRequest) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"count": request.session["count"]})


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return JsonResponse({"name": file.name, "size": file.size, "sha256": digest.hexdigest(), "note": request.POST["note"]})


@csrf_exempt
def body(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type="application/octet-stream")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for number in range(100):
            yield f"line {number}\n"

    async def async_lines() -> AsyncIterator[str]:
        for line in lines():
            yield line

    return StreamingHttpResponse(async_lines() if isinstance(request, ASGIRequest) else lines(), content_type="text/plain")


def file(request: HttpRequest) -> FileResponse:
    return FileResponse(open(os.environ["DJANGO_FILE"], "rb"), as_attachment=True, filename="ducks.bin")


def error(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("secret of the view")


async def async_view(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"async": True, "user": request.META.get("HTTP_X_USER", "")})


urlpatterns = [
    path("", index),
    path("page/<path:rest>", lambda request, rest: index(request)),
    path("admin/", admin.site.urls),
    path("counter", counter),
    path("upload", upload),
    path("body", body),
    path("stream", stream),
    path("file", file),
    path("error", error),
    path("async", async_view),
]

wsgi = get_wsgi_application()
asgi = get_asgi_application()

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)

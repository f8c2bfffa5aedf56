"""A whole Django project in one file, on either interface. Run it:

pip install django && duckfast django_app:application          WSGI
pip install django && duckfast django_app:asgi_application     ASGI

A project made by `django-admin startproject mysite` needs nothing of this:  duckfast mysite.wsgi:application
"""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        SECRET_KEY=os.environ.get("SECRET_KEY", "only-for-this-example"),
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF=__name__,
    )


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<h1>Hello from Django</h1>")


async def whoami(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"path": request.path, "agent": request.headers.get("User-Agent")})


urlpatterns = [path("", hello), path("whoami/", whoami)]
application = get_wsgi_application()
asgi_application = get_asgi_application()

# Appended to the settings of the project that the framework has made for the tests.
import os

DEBUG = False
AUTO_RELOAD = False
ASYNC_HANDLING = os.environ.get("SITE_ASYNC") == "1"
ENABLE_HTTPS = "SITE_CERTIFICATE" in os.environ
SSL_CERTFILE_LOCATION = os.environ.get("SITE_CERTIFICATE", "")
SSL_PRIVATE_KEY_LOCATION = os.environ.get("SITE_KEY", "")
SUPPORT_HTTP_2 = False
SILENT = True
MIDDLEWARES = []

"""What a project adds to be served by the duckfast command."""

import os

from duck.settings import SETTINGS
from web import main, micro

from duckfast.contrib.duck import DuckASGI, DuckWSGI

app = micro.app if os.environ.get("SITE_MICRO") == "1" else main.app
application = (DuckASGI if SETTINGS["ASYNC_HANDLING"] else DuckWSGI)(app)

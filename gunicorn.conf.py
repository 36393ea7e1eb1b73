"""`gunicorn -c gunicorn.conf.py` in a checkout: the configuration of the package, read anew on each reload."""

import runpy

globals().update(runpy.run_module("odinws.gunicorn_conf"))

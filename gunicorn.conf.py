"""`gunicorn -c gunicorn.conf.py`: the package's configuration, which a reload reads anew."""

import runpy

globals().update(runpy.run_module("odinws.gunicorn_conf"))

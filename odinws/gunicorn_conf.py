"""gunicorn's configuration of odinws: `odinws serve`, or `gunicorn -c python:odinws.gunicorn_conf`.

What a deployment may choose are environment variables, read in `odinws/settings/`.
"""

import math

from odinws import logs
from odinws.deployment import Deployment

deployment = Deployment.load()
settings = deployment.settings

wsgi_app = "odinws.app:create_app"
host = f"[{settings.host}]" if ":" in settings.host else settings.host  # IPv6
bind = f"{host}:{settings.port}"
workers = settings.workers
worker_class = "odinws.worker.Worker"
# A slot per HTTP request under way; WebSockets leave the pool. Above the cap, so that a full server
# still answers with a refusal instead of silence.
worker_connections = settings.max_connections + 1000
backlog = 4096
# A worker that does not yield for this long is killed.
timeout = 30
# More than a worker needs: it says goodbye for `drain_seconds`, waits for `stop_seconds`, and ends.
graceful_timeout = math.ceil(settings.drain_seconds + settings.stop_seconds) + 4
# One name for all servers of a user would make them share it.
control_socket_disable = True
logconfig_dict = logs.config(settings.log_level, settings.log_format, access=settings.log_access)

on_starting = deployment.on_starting
on_reload = deployment.on_reload
when_ready = deployment.when_ready
pre_exec = deployment.pre_exec
pre_fork = deployment.pre_fork
post_fork = deployment.post_fork
child_exit = deployment.child_exit
on_exit = deployment.on_exit

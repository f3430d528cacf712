"""gunicorn in place of bin/serve's own web server: ``gunicorn --config deploy/gunicorn.conf.py wsgi:app``.

To be run in the project's folder, behind a proxy that has read whole requests, with ``bin/supervisor`` and
``mistral-api deliver`` beside it. gunicorn does not read ``.env``: the address stands here. docs/operation.md, "Other
web servers", says what is lost against ``bin/serve``.
"""

bind = "127.0.0.1:9000"
# Each is a whole API process. More than there are cores gain nothing.
workers = 2
worker_class = "gthread"
# A request that runs or waits for a slot holds one of them, a stream too. /health waits behind them.
threads = 64
# What a proxy keeps open between requests.
keepalive = 60
# How long running requests may take to end when it stops: SHUTDOWN_SECONDS.
graceful_timeout = 10
limit_request_line = 8190
limit_request_field_size = 16384
# No socket for commands in the home folder.
control_socket_disable = True

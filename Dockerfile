# The server, the data files it reads and its pinned runtime packages; nothing else.
#
#   docker build -t odinws .
#   docker run -p 3004:3004 odinws                                   # brings its own nats-server
#   docker run -p 3004:3004 -e NATS_URL=nats://broker:4222 odinws    # uses yours
#
# Every setting is an environment variable. It needs no capability, and no writable file system
# but /tmp: `--cap-drop=ALL --read-only --tmpfs /tmp` is a good idea.

# Anything will do that has python3 3.11 to 3.14 with its venv module, CA certificates and useradd.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
# pip lives in an environment of its own, so that what runs carries no installer.
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/venv
COPY conf/requirements-runtime.txt /build/
# Wheels only: a pin that would need a compiler fails here instead of bringing one along. nkeys has none, and
# is plain Python.
RUN /pip/bin/pip --python /opt/venv/bin/python3 install --no-cache-dir --no-compile \
        --only-binary=:all: --no-binary=nkeys --require-hashes -r /build/requirements-runtime.txt
COPY gunicorn.conf.py /app/
COPY conf /app/conf
COPY strategies /app/strategies
COPY odinws /app/odinws
# The server can't write there, so the byte code is made now; by hash, as time stamps may be
# rewritten on the way into the image. Modes don't depend on the umask of the checkout.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/venv /app/odinws /app/strategies \
    && chmod -R a+rX,go-w /opt/venv /app

FROM ${BASE}
RUN useradd --no-log-init --uid 10001 --user-group --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin odinws
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WS_ADDR=0.0.0.0:3004
WORKDIR /app
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# The admin plane is not exposed: it listens at 127.0.0.1:3005 of the container unless WS_ADMIN_ADDR says otherwise.
EXPOSE 3004
# No curl here, and no urllib either: that one would ask a proxy if the environment names one.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python3", "-IS", "-c", "\
import http.client, os, sys; \
port = int(os.environ['WS_ADDR'].rpartition(':')[2]); \
ask = http.client.HTTPConnection('127.0.0.1', port, timeout=3); \
ask.request('GET', '/readyz'); \
sys.exit(ask.getresponse().status != 200)"]
# Exec form: gunicorn is process 1, gets the signal itself and reaps what is orphaned.
STOPSIGNAL SIGTERM
CMD ["gunicorn", "-c", "gunicorn.conf.py"]

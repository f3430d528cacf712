"""Caddy and nginx with the configurations of ``deploy/``, on free ports, and connections of clients to them.

Only addresses, names and paths are put in place of those in the files; the rest is what an operator gets.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT, free_port, skip_unless_ci, wait_for

# A name for which Caddy issues the certificate itself.
NAME = "mistral-api.internal"
DEPLOY = ROOT / "deploy"
_NGINX_MAIN = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/proxy.log;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/mistral-api.conf;
}}
"""


@dataclass(frozen=True)
class Reply:
    """A response with its body read."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """Return the decoded body."""
        return json.loads(self.body)


def read_reply(connection: http.client.HTTPConnection) -> Reply:
    """Read the response of a connection whole."""
    with connection.getresponse() as response:
        return Reply(response.status, response.headers, response.read())


@dataclass(frozen=True)
class Proxy:
    """A running proxy: its ports, the certificate that its clients trust, and what it logs."""

    http_port: int
    https_port: int
    trusted: Path
    folder: Path
    name: str = NAME

    @property
    def origin(self) -> str:
        """The origin of its site."""
        return f"https://{self.name}:{self.https_port}"

    def log(self) -> str:
        """Return everything that it has logged."""
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.log"))

    def connect(self, source: str = "127.0.0.1", protocols: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLSocket:
        """Return a TLS connection from this address of the client, with the certificate verified."""
        context = ssl.create_default_context(cafile=self.trusted)
        context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", self.https_port), timeout=30, source_address=(source, 0))
        return context.wrap_socket(plain, server_hostname=self.name)

    @contextlib.contextmanager
    def client(self, source: str = "127.0.0.1") -> Iterator[http.client.HTTPConnection]:
        """Yield an HTTP connection over :meth:`connect`."""
        connection = http.client.HTTPConnection(self.name, self.https_port, timeout=30)
        connection.sock = self.connect(source)
        try:
            yield connection
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> Reply:
        """Send a request on a connection of its own; return the response."""
        with self.client() as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            return read_reply(connection)


@contextlib.contextmanager
def caddy(folder: Path, upstream: str, name: str = NAME) -> Iterator[Proxy]:
    """Run Caddy in front of this address, as the site of this name."""
    program = shutil.which("caddy", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        skip_unless_ci("Caddy is not installed")
    proxy = Proxy(free_port(), free_port(), folder / "caddy/pki/authorities/local/root.crt", folder, name)
    variables = {
        "MISTRAL_API_SITE": name,
        "MISTRAL_API_HTTP_PORT": str(proxy.http_port),
        "MISTRAL_API_HTTPS_PORT": str(proxy.https_port),
        "MISTRAL_API_UPSTREAM": upstream,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    command = [program, "run", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    with _running(proxy, command, os.environ | variables):
        yield proxy


@contextlib.contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[Proxy]:
    """Run nginx in front of this address."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        skip_unless_ci("nginx is not installed (Debian: nginx-light)")
    proxy = Proxy(free_port(), free_port(), folder / "fullchain.pem", folder)
    _make_certificate(folder)
    (folder / "mistral-api.conf").write_text(_nginx_site(proxy, upstream))
    (folder / "nginx.conf").write_text(_NGINX_MAIN.format(folder=folder))
    with _running(proxy, [program, "-p", str(folder), "-c", str(folder / "nginx.conf")], dict(os.environ)):
        yield proxy


Starter = Callable[[Path, str], contextlib.AbstractContextManager[Proxy]]
PROXIES: dict[str, Starter] = {"caddy": caddy, "nginx": nginx}


def _nginx_site(proxy: Proxy, upstream: str) -> str:
    """Return the file in ``deploy/`` with the addresses, names and paths of a test."""
    text = (DEPLOY / "nginx.conf").read_text()
    replacements = {
        "listen 80": f"listen 127.0.0.1:{proxy.http_port}",
        "listen 443": f"listen 127.0.0.1:{proxy.https_port}",
        "server 127.0.0.1:9000": f"server {upstream}",
        "/etc/letsencrypt/live/api.example.com": str(proxy.folder),
        "/var/log/nginx": str(proxy.folder),
        "api.example.com": NAME,
    }
    for old, new in replacements.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def _make_certificate(folder: Path) -> None:
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    openssl = shutil.which("openssl")
    if openssl is None:
        skip_unless_ci("openssl is not installed")
    subprocess.run([openssl, "req", "-x509", *kind, *subject, *files], check=True, capture_output=True, timeout=30)


@contextlib.contextmanager
def _running(proxy: Proxy, command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Run the program until the end of the block; begin when it speaks TLS."""
    with (proxy.folder / "output.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=proxy.folder, stdout=log, stderr=subprocess.STDOUT)

    def serves() -> bool:
        assert process.poll() is None, proxy.log()
        try:
            proxy.connect().close()
        except OSError:
            return False
        return True

    try:
        wait_for(serves, "a TLS connection to the proxy")
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)

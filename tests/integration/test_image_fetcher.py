"""Images are fetched from public addresses alone, within bounds, by whatever spelling a client names them."""

import base64
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import certifi
import pytest

from mistral_api.upstream import image_fetcher
from mistral_api.upstream.cancellation import DisconnectWatcher, UpstreamCall
from mistral_api.upstream.errors import ClientClosedRequest
from mistral_api.upstream.fetch_budget import FetchBudget, ImageNotFetched
from mistral_api.upstream.image_fetcher import ImageFetcher
from tests.support.certificates import make_certificate
from tests.support.image_server import PNG, ImageServer, image_server, settle
from tests.support.processes import wait_for

BYTES = 1 << 20


@pytest.fixture(name="watcher")
def _watcher() -> Iterator[DisconnectWatcher]:
    watcher = DisconnectWatcher()
    yield watcher
    watcher.close()


@pytest.fixture(name="images")
def _images() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def _fetch(watcher: DisconnectWatcher, url: str, seconds: float = 5, call: UpstreamCall | None = None) -> str:
    """Fetch where this machine counts as public."""
    fetcher = ImageFetcher(watcher, lambda address: address in ("127.0.0.1", "::1"))
    return fetcher.fetch(url, FetchBudget.of_request(BYTES, seconds), call or UpstreamCall())


def test_an_image_becomes_a_data_url(watcher: DisconnectWatcher, images: ImageServer) -> None:
    budget = FetchBudget.of_request(BYTES)
    fetcher = ImageFetcher(watcher, lambda _address: True)
    found = fetcher.fetch(images.url("/image.png?size=1"), budget, UpstreamCall())
    assert found == "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert budget.bytes == BYTES - len(found)
    (head,) = images.heads
    assert head.startswith("GET /image.png?size=1 HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{images.port}\r\n" in head
    assert "authorization" not in head.lower()
    assert watcher.wait_until_idle(1)


def test_the_proxy_of_the_environment_is_not_asked(
    watcher: DisconnectWatcher, images: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with image_server() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url("", "127.0.0.1"))
        monkeypatch.setenv("NO_PROXY", "")
        _fetch(watcher, images.url())
        assert (images.connections, proxy.connections) == (1, 0)


# Each names this machine, or hides its name from one parser or another (vLLM CVE-2026-24779, Open WebUI
# CVE-2026-45400 and CVE-2026-45401 are of this kind).
SPELLINGS = [
    "http://127.0.0.1:{port}/image.png",
    "http://localhost:{port}/image.png",
    "http://LOCALHOST:{port}/image.png",
    "http://localhost.:{port}/image.png",
    "http://127.0.0.1.:{port}/image.png",
    "http://127.1:{port}/image.png",
    "http://0177.0.0.1:{port}/image.png",
    "http://0x7f000001:{port}/image.png",
    "http://2130706433:{port}/image.png",
    "http://0:{port}/image.png",
    "http://0.0.0.0:{port}/image.png",
    "http://[::1]:{port}/image.png",
    "http://[::]:{port}/image.png",
    "http://[::ffff:127.0.0.1]:{port}/image.png",
    "http://[::ffff:7f00:1]:{port}/image.png",
    "http://[0:0:0:0:0:ffff:7f00:1]:{port}/image.png",
    "http://[64:ff9b::7f00:1]:{port}/image.png",
    "http://[2002:7f00:1::]:{port}/image.png",
    "http://[::1%25lo]:{port}/image.png",
    "http://[fe80::1%25lo]:{port}/image.png",
    "http://one.one.one.one\\@127.0.0.1:{port}/image.png",
    "http://127.0.0.1:{port}\\@one.one.one.one/image.png",
    "http://one.one.one.one@127.0.0.1:{port}/image.png",
    "http://user:password@127.0.0.1:{port}/image.png",
    "http://127.0.0.1:{port}#@one.one.one.one/image.png",
    "http://127.0.0.1:{port}?@one.one.one.one/image.png",
    "http://127.0.0.1:{port}/@one.one.one.one/image.png",
    "http:\\\\127.0.0.1:{port}/image.png",
    "http:/\\127.0.0.1:{port}/image.png",
    "http:127.0.0.1:{port}/image.png",
    "http:///127.0.0.1:{port}/image.png",
    "http://\t127.0.0.1:{port}/image.png",
    "http://127.0.0.1\n:{port}/image.png",
    "ht\ntp://127.0.0.1:{port}/image.png",
    " http://127.0.0.1:{port}/image.png",
    "http://127.0.0.1:{port}/image.png ",
    "http://%31%32%37.0.0.1:{port}/image.png",
    "http://127%2e0%2e0%2e1:{port}/image.png",
    "http://127.0.0.1%00.one.one.one.one:{port}/image.png",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:{port}/image.png",
    "http://①②⑦.⓪.⓪.①:{port}/image.png",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/image.png",
    "http://127。0。0。1:{port}/image.png",
    "http://[127.0.0.1]:{port}/image.png",
    "http://[::1:{port}/image.png",
    "http://:{port}/image.png",
    "http://127.0.0.1:{port}0000/image.png",
    "ftp://127.0.0.1:{port}/image.png",
    "file:///etc/passwd",
    "file://127.0.0.1:{port}/etc/passwd",
    "gopher://127.0.0.1:{port}/_GET%20/image.png",
    "unix:///var/run/docker.sock",
    "javascript:alert(1)",
    "//127.0.0.1:{port}/image.png",
    "127.0.0.1:{port}/image.png",
    "http://one.one.one.one:25/",
    "http://" + "a" * 300 + ".example/",
    "http://x.example/" + "a" * 5000,
    "",
]


def test_no_spelling_of_this_machine_is_ever_contacted(watcher: DisconnectWatcher) -> None:
    fetcher = ImageFetcher(watcher)
    with image_server() as four, image_server(host="::1") as six:
        for spelling in SPELLINGS:
            for server in (four, six):
                with pytest.raises(ImageNotFetched):
                    fetcher.fetch(spelling.format(port=server.port), FetchBudget.of_request(BYTES), UpstreamCall())
        settle()
        assert (four.connections, six.connections) == (0, 0)


def _resolves_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to these addresses, look-up by look-up. Return the names that are looked up."""
    names: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *options: Any, **more: Any) -> list[Any]:
        if host[0].isdecimal():  # an address, which nobody has to be asked for
            return list(real(host, port, *options, **more))
        names.append(host)
        found = answers[min(len(names), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return names


@pytest.mark.parametrize("others", [[], ["1.1.1.1"], ["2606:4700:4700::1111"]])
def test_a_name_with_one_private_address_is_not_contacted(
    watcher: DisconnectWatcher, images: ImageServer, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    _resolves_to(monkeypatch, [*others, "127.0.0.1"])
    with pytest.raises(ImageNotFetched, match="not public"):
        ImageFetcher(watcher).fetch(images.url(host="images.example"), FetchBudget.of_request(BYTES), UpstreamCall())
    assert not images.connections


def test_a_name_that_is_rebound_after_the_check_is_not_asked_again(
    watcher: DisconnectWatcher, images: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server at the first address is the one that is asked, whatever the name means later."""
    with image_server(host="127.0.0.2") as rebound:
        names = _resolves_to(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        fetcher = ImageFetcher(watcher, lambda address: address == "127.0.0.1")
        fetcher.fetch(images.url(host="images.example"), FetchBudget.of_request(BYTES), UpstreamCall())
        assert names == ["images.example"]
        assert (images.connections, rebound.connections) == (1, 0)
    assert f"\r\nHost: images.example:{images.port}\r\n" in images.heads[0]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/redirect", "redirect"),
        ("/missing", "status 404"),
        ("/page", "no PNG"),
        ("/zipped", "no PNG"),
        ("/huge", "too large"),
        ("/endless", "too large"),
        ("/cut", "cannot be fetched"),
    ],
)
def test_an_answer_that_is_no_image_says_why(
    watcher: DisconnectWatcher, images: ImageServer, path: str, reason: str
) -> None:
    with pytest.raises(ImageNotFetched, match=reason):
        _fetch(watcher, images.url(path))
    assert images.connections == 1  # and a redirect is not followed


@pytest.mark.parametrize("path", ["/drip-head", "/drip-body"])
def test_bytes_that_drip_in_meet_the_deadline(watcher: DisconnectWatcher, images: ImageServer, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(ImageNotFetched, match="in time"):
        _fetch(watcher, images.url(path), seconds=0.5)
    assert time.monotonic() - started < 10


def _start_handshake(listener: socket.socket, released: threading.Event) -> None:
    """Announce a record of TLS, and send its bytes one by one."""
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"\x16\x03\x03\x40\x00")
        while not released.wait(0.05):
            connection.sendall(b"\x02")


def test_a_handshake_that_never_ends_meets_the_deadline(watcher: DisconnectWatcher) -> None:
    released = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_start_handshake, args=(listener, released), daemon=True)
        thread.start()
        started = time.monotonic()
        with pytest.raises(ImageNotFetched, match="in time"):
            _fetch(watcher, f"https://127.0.0.1:{listener.getsockname()[1]}/", seconds=0.5)
        assert time.monotonic() - started < 10
        released.set()
        thread.join(timeout=5)


def test_a_name_that_does_not_resolve_in_time_meets_the_deadline(
    watcher: DisconnectWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def look_up(*_arguments: Any, **_options: Any) -> list[Any]:
        released.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with pytest.raises(ImageNotFetched, match="in time"):
            _fetch(watcher, "http://slow.example/", seconds=0.3)
    finally:
        released.set()


def test_a_client_that_leaves_ends_its_fetch(watcher: DisconnectWatcher, images: ImageServer) -> None:
    gone = threading.Event()
    call = UpstreamCall(gone.is_set)
    threading.Timer(0.3, gone.set).start()
    started = time.monotonic()
    with pytest.raises(ClientClosedRequest):
        _fetch(watcher, images.url("/drip-body"), seconds=20, call=call)
    assert time.monotonic() - started < 10


def test_no_more_than_a_few_are_fetched_at_once(watcher: DisconnectWatcher, images: ImageServer) -> None:
    fetcher = ImageFetcher(watcher, lambda _address: True)

    def fetch(_number: int) -> str:
        return fetcher.fetch(images.url("/drip-body"), FetchBudget.of_request(BYTES, 20), UpstreamCall())

    most = image_fetcher.MOST_AT_ONCE
    with ThreadPoolExecutor(most) as pool:
        dripping = pool.map(fetch, range(most))
        wait_for(lambda: images.connections == most, "as many connections as there may be")
        with pytest.raises(Exception, match="Too many images") as refused:
            fetcher.fetch(images.url(), FetchBudget.of_request(BYTES, 1), UpstreamCall())
        assert refused.value.status == 503  # type: ignore[attr-defined]
        assert images.connections == most
        images.stopped.set()  # which ends the images as well
        assert all(found.startswith("data:image/png;") for found in dripping)


def test_tls_proves_the_name_in_the_url_at_the_pinned_address(
    watcher: DisconnectWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = make_certificate(tmp_path, "images.example")
    names: list[str | None] = []
    context.sni_callback = lambda _connection, name, _context: names.append(name)
    monkeypatch.setattr(certifi, "where", lambda: str(path))
    _resolves_to(monkeypatch, ["127.0.0.1"])
    with image_server(context) as server:
        assert _fetch(watcher, server.url(host="images.example", scheme="https")).startswith("data:image/png;")
        assert names == ["images.example"]
        with pytest.raises(ImageNotFetched, match="cannot be fetched"):
            _fetch(watcher, server.url(host="other.example", scheme="https"))
        assert len(server.heads) == 1


def test_tls_trusts_no_certificate_that_signs_itself(
    watcher: DisconnectWatcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, context = make_certificate(tmp_path, "images.example")
    _resolves_to(monkeypatch, ["127.0.0.1"])
    with image_server(context) as server:
        with pytest.raises(ImageNotFetched, match="cannot be fetched"):
            _fetch(watcher, server.url(host="images.example", scheme="https"))
        assert not server.heads

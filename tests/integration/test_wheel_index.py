"""The index of wheels, and who is asked for one: hashes, redirections, passwords, proxies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx2
import pytest

from mistral_api.downloads.errors import DownloadError
from mistral_api.engine_builds import index_client, wheel_index
from mistral_api.engine_builds.wheel_index import GITHUB_API, IndexAway, WheelIndex
from tests.support.engine_wheels import EngineIndex, engine_index, wheel_name
from tests.support.http_stub import StubHandler, http_stub

VERSION = "2026.10.1"
SHA256 = "ab" * 32


@pytest.fixture
def index() -> Iterator[EngineIndex]:
    with engine_index() as running:
        yield running


class _Recorder(StubHandler):
    """Answers each page with one link to a wheel, or with a redirection; records what it was asked."""

    seen: list[tuple[str, str | None]]
    target = ""
    page = b""

    def get(self) -> None:
        """Answer."""
        self.seen.append((self.path, self.headers.get("Authorization")))
        if self.target:
            self.send_whole(302, b"", {"Location": self.target})
        elif self.path.endswith(".whl"):
            self._begin(200, {"Content-Length": "7"})
        else:
            link = f'<a href="{wheel_name(VERSION)}#sha256={SHA256}">it</a>'.encode()
            self.send_whole(200, self.page or link, {"Content-Type": "text/html"})


@contextlib.contextmanager
def _recorder(target: str = "", page: bytes = b"") -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    with http_stub(_Recorder, seen=seen, target=target, page=page) as url:
        yield url, seen


@pytest.mark.parametrize("form", ["html", "json"])
def test_wheel_for_this_python_is_found_with_its_hash(index: EngineIndex, form: str) -> None:
    index.faults = {form}
    index.add("cu128", VERSION)
    for other in (
        wheel_name(VERSION, "win_arm64"),
        wheel_name("2026.9.9"),
        "xllamacpp-1.tar.gz",
        "other-1-py3-none-any.whl",
    ):
        index.wheels[f"cu128/{other}"] = b"another"
    wheel = WheelIndex(f"{index.url}/").find("cu128", VERSION)
    name = wheel_name(VERSION)
    assert (wheel.name, wheel.host) == (name, index.url.removeprefix("http://"))
    assert (wheel.size, (name, wheel.sha256)) == (len(index.wheels[f"cu128/{name}"]), index.links("cu128")[0])


@pytest.mark.parametrize("stated", ["", "#sha256=", "#sha256=abc", f"#md5={SHA256}"])
def test_wheel_whose_hash_nobody_states_is_refused(stated: str) -> None:
    page = f'<a href="{wheel_name(VERSION)}{stated}">it</a>'.encode()
    with _recorder(page=page) as (url, _), pytest.raises(DownloadError, match="Nobody states the SHA-256"):
        WheelIndex(url).find("cu128", VERSION)


@pytest.mark.parametrize(
    ("assets", "expected"),
    [
        ('[{"name": "NAME", "digest": "sha256:HASH"}]', SHA256),
        ('[{"name": "NAME", "digest": null}]', "Nobody states"),
        ('[{"name": "another", "digest": "sha256:HASH"}]', "Nobody states"),
        ('"nothing"', "does not answer as GitHub's API does"),
    ],
)
def test_hash_of_a_release_is_that_of_github(monkeypatch: pytest.MonkeyPatch, assets: str, expected: str) -> None:
    name, base = wheel_name(VERSION), "https://github.com/xorbitsai/xllamacpp/releases/download/v1-cu128"
    release = f"{GITHUB_API}/repos/xorbitsai/xllamacpp/releases/tags/v1-cu128"
    pages = {
        "https://index.example/whl/cu128/xllamacpp/": (f'<a href="{base}/{name}">it</a>', "text/html"),
        release: (f'{{"assets": {assets}}}'.replace("NAME", name).replace("HASH", SHA256), "application/json"),
    }

    class Client(index_client.IndexClient):
        def page(self, url: str, accept: str) -> tuple[bytes, str, str]:
            assert accept
            text, kind = pages[url]
            return text.encode(), kind, url

        @contextlib.contextmanager
        def answer(self, method: str, url: str, **_headers: str) -> Iterator[httpx2.Response]:
            assert (method, url) == ("HEAD", f"{base}/{name}")
            yield httpx2.Response(200, headers={"content-length": "99"})

    monkeypatch.setattr(wheel_index, "IndexClient", Client)
    if expected != SHA256:
        with pytest.raises(DownloadError, match=expected):
            WheelIndex("https://index.example/whl").find("cu128", VERSION)
        return
    wheel = WheelIndex("https://index.example/whl").find("cu128", VERSION)
    assert (wheel.url, wheel.size, wheel.sha256) == (f"{base}/{name}", 99, SHA256)


@pytest.mark.parametrize("target", ["http://elsewhere.example/whl", "http://localhost:9/whl"])
def test_redirection_to_another_host_without_tls_is_refused(target: str) -> None:
    with _recorder(target) as (url, _), pytest.raises(DownloadError, match="where nothing protects a program"):
        WheelIndex(url).find("cu128", VERSION)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("ftp://elsewhere.example/whl", "leads to an address that is neither http nor https"),
        ("/again", r"cannot be asked \(TooManyRedirects\): check ENGINE_INDEX_URL"),
    ],
)
def test_redirection_that_leads_nowhere_is_an_error(target: str, sentence: str) -> None:
    with _recorder(target) as (url, _), pytest.raises(DownloadError, match=sentence):
        WheelIndex(url).find("cu128", VERSION)


def test_password_goes_to_the_index_alone_and_into_no_message() -> None:
    with _recorder() as (url, seen):
        wheel = WheelIndex(url.replace("http://", "http://me:s3cret%21@")).find("cu128", VERSION)
        assert "s3cret" not in f"{wheel.url} {wheel.host} {wheel.name}"
        assert [authorization for _, authorization in seen] == ["Basic bWU6czNjcmV0IQ=="] * 2
        with _recorder(f"{url}/whl/") as (redirecting, first):
            host = redirecting.removeprefix("http://")
            WheelIndex(f"http://me:s3cret@{host}").find("cu128", VERSION)
        assert first[0][1] is not None
        assert seen[-1][1] is None  # another port is another server
    with pytest.raises(IndexAway) as away:
        WheelIndex("http://me:s3cret@127.0.0.1:9").find("cu128", VERSION)
    assert "127.0.0.1:9 cannot be reached" in str(away.value)
    assert "s3cret" not in str(away.value)


def test_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with _recorder() as (proxy, seen):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        wheels = WheelIndex("http://index.invalid/whl")
        assert wheels.is_unprotected
        assert wheels.find("cu128", VERSION).sha256 == SHA256
    assert seen[0][0] == "http://index.invalid/whl/cu128/xllamacpp/"
    monkeypatch.setenv("HTTP_PROXY", "nonsense://proxy:1")
    with pytest.raises(DownloadError, match="The proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used"):
        wheels.find("cu128", VERSION)


def test_index_on_this_machine_or_with_tls_is_protected() -> None:
    urls = ("http://127.0.0.1:1", "http://localhost/whl", "http://[::1]/whl", "https://index.example")
    assert not any(WheelIndex(url).is_unprotected for url in urls)


@pytest.mark.parametrize(
    ("seconds", "most", "error", "sentence"),
    [(0.0, 1 << 20, IndexAway, "has not sent a page within 0 s"), (60.0, 3, DownloadError, "a page without an end")],
)
def test_page_that_does_not_end_is_left(
    monkeypatch: pytest.MonkeyPatch, seconds: float, most: int, error: type[Exception], sentence: str
) -> None:
    monkeypatch.setattr(index_client, "PAGE_SECONDS", seconds)
    monkeypatch.setattr(index_client, "MOST_PAGE_BYTES", most)
    with _recorder() as (url, _), pytest.raises(error, match=sentence):
        WheelIndex(url).find("cu128", VERSION)


def test_certificates_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    with pytest.raises(DownloadError, match="SSL_CERT_FILE or SSL_CERT_DIR cannot be used"):
        WheelIndex("https://127.0.0.1:9").find("cu128", VERSION)

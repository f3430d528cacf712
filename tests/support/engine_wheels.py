"""Builds of the bundled engine for cards that nobody has: wheels that bring the real engine and name a card.

The index that has them speaks the protocol of the makers' own, over real sockets; ``faults`` says how it misbehaves.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mistral_api.engine_builds.build_store import BuildStore, Choice, packaged_version
from mistral_api.engine_builds.variants import Kind
from tests.support.http_stub import StubHandler, http_stub

CARD = "NVIDIA Imaginary 0"
CARD_MIB = 8192
# The package looks for the engine of the environment, behind its own folder on the path, and adds a card to it.
_STAND_IN = f'''
import importlib.machinery, importlib.util, pathlib, sys

_others = [path for path in sys.path if pathlib.Path(path) != pathlib.Path(__file__).parent.parent]
_spec = importlib.machinery.PathFinder.find_spec("xllamacpp", _others)
_module = sys.modules["xllamacpp"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
_real = _module.get_device_info


def _devices():
    card = dict(_real()[0], name="CUDA0", description="{CARD}", memory_total={CARD_MIB} << 20, memory_free=7000 << 20)
    return [card | {{"type": _module.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU}}, *_real()]


_module.get_device_info = _devices
'''
_CRASHES = "import os\nos.abort()\n"
_NO_CARD = _STAND_IN.replace("_module.get_device_info = _devices\n", "")
_NEEDS_LIBRARY = 'raise ImportError("libcudart.so.13: cannot open shared object file: No such file or directory")\n'
_CRASHES_AT_LOAD = f"""{_STAND_IN}

def _load(_params):
    import os
    os.write(2, b"CUDA error: no kernel image is available for execution on the device\\n")
    os.abort()


_module.Server = _load
"""
PACKAGES = {
    "works": _STAND_IN,
    "crashes": _CRASHES,
    "crashes-at-load": _CRASHES_AT_LOAD,
    "finds-no-card": _NO_CARD,
    "needs-library": _NEEDS_LIBRARY,
}


def wheel_name(version: str, platform: str | None = None) -> str:
    """Return the file name of a wheel for this system."""
    here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return f"xllamacpp-{version}-cp310-abi3-{platform or here}.whl"


def wheel_bytes(version: str, behaviour: str = "works", filling: int = 0) -> bytes:
    """Return a wheel. ``filling``: so many bytes of noise in it, as the code for cards is large."""
    described = f"xllamacpp-{version}.dist-info"
    files = {
        "xllamacpp/__init__.py": PACKAGES[behaviour].encode(),
        "xllamacpp/kernels.bin": hashlib.shake_256(b"kernels").digest(filling),
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: xllamacpp\nVersion: {version}\n".encode(),
        f"{described}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-abi3-any\n",
    }
    lines = [f"{name},sha256={_record_hash(content)},{len(content)}" for name, content in files.items()]
    record = f"{described}/RECORD"
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def install_build(data_dir: Path, behaviour: str = "works", version: str | None = None) -> Path:
    """Put a build where an installation leaves it, as the chosen one; return its folder."""
    version = version or packaged_version()
    store = BuildStore(data_dir)
    with store.unpacking() as unpacked:
        (unpacked / "xllamacpp").mkdir()
        (unpacked / "xllamacpp" / "__init__.py").write_text(PACKAGES[behaviour])
        kept = store.keep(unpacked, "cu128", version)
    store.remember(Choice(Kind.AUTO, kept.variant, version))
    assert kept.folder is not None
    return kept.folder


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


@dataclass
class EngineIndex:
    """The index: wheels by ``variant/file name``, and what was asked for.

    ``faults``: ``cut`` ends the connection after half of what is left, once; ``wrong-hash`` states another hash;
    ``no-hash`` states none; ``json`` answers pages as JSON; ``broken`` answers them with status 503; ``page`` sends a
    page instead of a wheel; ``stall`` sends the first half of one and then nothing.
    """

    wheels: dict[str, bytes] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, variant: str, version: str, behaviour: str = "works", filling: int = 0) -> None:
        """Offer a wheel."""
        self.wheels[f"{variant}/{wheel_name(version)}"] = wheel_bytes(version, behaviour, filling)

    def ranges(self) -> list[str | None]:
        """Return the Range header of each request for a wheel's content, in order."""
        return [range_ for method, path, range_ in self.requests if method == "GET" and path.endswith(".whl")]

    def links(self, variant: str) -> list[tuple[str, str]]:
        """Return the names of a variant's wheels with the SHA-256 that is stated."""
        found = {path.partition("/")[2]: content for path, content in self.wheels.items() if path.startswith(variant)}
        lie = b"?" if "wrong-hash" in self.faults else b""
        return [(name, hashlib.sha256(content + lie).hexdigest()) for name, content in found.items()]


class _Handler(StubHandler):
    index: EngineIndex

    def get(self) -> None:
        """Answer with the page of a variant, or with a wheel."""
        self.index.requests.append((self.command, self.path, self.headers.get("Range")))
        variant, name = self.path.strip("/").split("/", 1)
        if f"{variant}/{name}" in self.index.wheels:
            self._send_wheel(self.index.wheels[f"{variant}/{name}"])
        elif name == "xllamacpp" and "broken" not in self.index.faults:
            self._send_page(variant)
        else:
            self.send_whole(503 if "broken" in self.index.faults else 404, b"nothing here")

    def _send_page(self, variant: str) -> None:
        links = self.index.links(variant)
        if "json" in self.index.faults:
            files = [{"filename": name, "url": f"../{name}", "hashes": {"sha256": hash_}} for name, hash_ in links]
            content = json.dumps({"meta": {"api-version": "1.0"}, "name": "xllamacpp", "files": files}).encode()
            self.send_whole(200, content, {"Content-Type": "application/vnd.pypi.simple.v1+json"})
            return
        anchors = [f'<a href="../{name}{self._fragment(hash_)}">{name}</a><br>' for name, hash_ in links]
        content = "\n".join(["<!DOCTYPE html><html><body>", '<a href="/">up</a>', *anchors, "</body></html>"]).encode()
        self.send_whole(200, content, {"Content-Type": "text/html; charset=utf-8"})

    def _fragment(self, stated: str) -> str:
        return "" if "no-hash" in self.index.faults else f"#sha256={stated}"

    def _send_wheel(self, content: bytes) -> None:
        if "page" in self.index.faults:
            content = b"<html>Please sign in to this network.</html>".ljust(len(content))
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        part = content[start:]
        headers = {"Content-Length": str(len(part))}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._begin(206 if asked else 200, headers)
        if self.command == "HEAD":
            return
        if "stall" in self.index.faults:
            self.wfile.write(part[: len(part) // 2])
            while "stall" in self.index.faults:
                time.sleep(0.02)
            self.close_connection = True
            return
        if "cut" in self.index.faults:
            self.index.faults.discard("cut")
            part, self.close_connection = part[: len(part) // 2], True
        self.wfile.write(part)


@contextlib.contextmanager
def engine_index() -> Iterator[EngineIndex]:
    """Run an index without wheels."""
    index = EngineIndex()
    handler = type("Handler", (_Handler,), {"index": index})
    with http_stub(handler) as url:
        index.url = url
        yield index

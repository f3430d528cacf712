"""An environment whose folder was moved, copied or renamed: the paths in it are put right, without network.

Three kinds of files have the old path: the launchers of commands, the scripts that activate the environment, and what
an editable installation has written. The record of the set-up says which path it was.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path, PurePath

from environment.errors import SetupError
from environment.paths import SCRIPTS, VENV, site_packages

VENV_SECONDS = 120
# The longest first line that Linux takes for a program's name (execve(2): 256 bytes; 128 before Linux 5.1).
MAX_SHEBANG = 127


def repair(old_venv: Path, base_python: str) -> None:
    """Put the paths right, from those of the old folder to those of this one. Raises SetupError, OSError."""
    _rewrite_activation(base_python)
    for file in sorted(SCRIPTS.iterdir()):
        if file.is_file() and not file.is_symlink():
            _rewrite(file, lambda content: move_launcher(content, _scripts_of(old_venv), SCRIPTS))
    old_root, new_root = old_venv.parent, VENV.parent
    packages = site_packages()
    for file in packages.glob("__editable__*.pth"):
        _rewrite(file, lambda content: _replace(content, str(old_root), str(new_root)))
    for file in packages.glob("__editable__*.py"):
        _rewrite(file, lambda content: _replace(content, _literal(old_root), _literal(new_root)))
    for file in packages.glob("*.dist-info/direct_url.json"):
        _rewrite(file, lambda content: _replace(content, f'"{old_root.as_uri()}"', f'"{new_root.as_uri()}"'))


def _rewrite_activation(base_python: str) -> None:
    """Have venv write pyvenv.cfg and the scripts that activate the environment."""
    command = [base_python, "-m", "venv", "--without-pip", str(VENV)]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=VENV_SECONDS, check=False
    )
    if done.returncode != 0:
        raise SetupError(f"The Python environment '{VENV}' cannot be repaired: {done.stderr.strip()[-300:]}")


def _rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    content = file.read_bytes()
    changed = change(content)
    if changed == content:
        return
    temporary = file.with_name(f"{file.name}.new")
    temporary.write_bytes(changed)
    temporary.chmod(file.stat().st_mode)
    temporary.replace(file)


def move_launcher(content: bytes, old: PurePath, new: PurePath) -> bytes:
    """Return the launcher of a command, with the folder of its Python changed from ``old`` to ``new``.

    pip writes launchers as distlib does (distlib/scripts.py, ``_build_shebang``): a first line ``#!python``, or, where
    that would be too long or has a space, a line for /bin/sh that runs Python on the same file; on Windows a program
    that is followed by such a first line and an archive.
    """
    python = re.escape(bytes(old)) + rb"[/\\](python[\w.]*)"
    content = re.sub(
        rb"\A(?:#!" + python + rb"|#!/bin/sh\n'''exec' \"?" + python + rb"\"? \"\$0\" \"\$@\"\n' ''')(?=\n)",
        lambda found: _shebang(bytes(new) + b"/" + (found[1] or found[2])),
        content,
    )
    return re.sub(
        rb"#!\"?" + python + rb"\"?(?=\r?\nPK\x03\x04)",
        lambda found: b'#!"' + bytes(new) + b"\\" + found[1] + b'"',
        content,
    )


def _shebang(python: bytes) -> bytes:
    if b" " not in python and len(python) + 2 <= MAX_SHEBANG:
        return b"#!" + python
    return b"#!/bin/sh\n'''exec' \"" + python + b'" "$0" "$@"\n\' \'\'\''


def _scripts_of(venv: Path) -> Path:
    return venv / SCRIPTS.name


def _replace(content: bytes, old: str, new: str) -> bytes:
    return content.replace(old.encode(), new.encode())


def _literal(path: Path) -> str:
    """Return a path as it stands within the quotes of a string of Python."""
    return re.sub(r"(['\"\\])", r"\\\1", str(path))

"""The systemd unit files of the services: ``unit.service.j2`` is their text, which is completed here.

The text says who runs, when it is restarted, and what it may touch (systemd.service(5), systemd.exec(5),
systemd.kill(5)). No setting is written into a unit, least of all a secret: the processes read ``.env`` in their working
directory. The units are commented for whoever reads them there.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("systemd is Linux'.")

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mistral_api.registration.accounts import UNSEEN_BY_SUPERVISOR, WRITTEN_BY_SUPERVISOR
from mistral_api.registration.rehearsal import InstallEnvironment
from mistral_api.registration.service import API, RegistrationError, Service
from mistral_api.supervisor.engine import VERSION_TIMEOUT_SECONDS
from mistral_api.supervisor.process import KILL_SECONDS, STOP_SECONDS
from mistral_api.supervisor.slot_cache import STOP_SAVE_TIMEOUT_SECONDS

WRITTEN_BY = "# Written by `mistral-api service install`, which writes it anew; `… uninstall` removes it."
# Below this port only root may listen, or who has the capability.
FIRST_FREE_PORT = 1024
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
# PrivateTmp gives a unit empty ones of its own.
TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - nothing is written there


class UnitOrigin(NamedTuple):
    """The project that an installed unit runs, and the folder with its data: what its first lines say."""

    project: str
    data_dir: str


def unit_text(service: Service, environment: InstallEnvironment, account: str | None) -> str:
    """Return the whole unit: of the system where there is an account, else of a user. Raises RegistrationError."""
    paths = (environment.project, environment.python, environment.data_dir, *environment.needed)
    hidden = [path for path in paths if _lies_in(path, TEMPORARY)]
    if account and hidden:
        raise RegistrationError(
            f"'{hidden[0]}' is, or links to, a place for temporary files, which a service of the system has for itself "
            "and finds empty: move it elsewhere, such as to /opt."
        )
    return _render(
        written_by=WRITTEN_BY,
        service=service,
        is_api=service is API,
        command=" ".join((service.module, *service.arguments)),
        environment=environment,
        account=account,
        binds_low_port=service is API and 0 < environment.api_port < FIRST_FREE_PORT,
        reads_home=any(_lies_in(path, HOMES) for path in paths),
        check_seconds=int(VERSION_TIMEOUT_SECONDS),
        written=WRITTEN_BY_SUPERVISOR,
        unseen=UNSEEN_BY_SUPERVISOR,
        save_seconds=int(STOP_SAVE_TIMEOUT_SECONDS),
        stop_seconds=int(STOP_SECONDS + KILL_SECONDS),
    )


def origin_of(text: str) -> UnitOrigin | None:
    """Return the origin of a unit, or None where we have not written it."""
    found = re.match(f"{re.escape(WRITTEN_BY)}\n.*\n# Project: (.+)\n# Data: (.+)\n", text)
    return UnitOrigin(found[1], found[2]) if found else None


def _render(**values: object) -> str:
    import jinja2  # noqa: PLC0415 - slow, and needed only here

    templates = jinja2.Environment(  # noqa: S701 - no HTML
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"escaped": _escape, "on_one_line": _on_one_line}
    return templates.get_template("unit.service.j2").render(values)


def _escape(path: Path) -> str:
    """Return a path as unit files take it (systemd.unit(5), "Specifiers"). Raises RegistrationError.

    Quoting rules differ between directives. Nobody has quotes, backslashes and the like in a path: they are refused.
    """
    text = _on_one_line(path)
    if text != text.strip() or set("\"'\\") & set(text):
        raise _unwritable(text)
    return text.replace("%", "%%")


def _on_one_line(path: Path) -> str:
    """Return a path for a comment, which a line break would end. Raises RegistrationError."""
    text = str(path)
    if not text.isprintable():
        raise _unwritable(text)
    return text


def _unwritable(text: str) -> RegistrationError:
    return RegistrationError(f"The path {text!r} cannot be written into a unit file: choose a simpler one.")


def _lies_in(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path, or what it links to, lies in one of the folders."""
    return any(place.is_relative_to(folder) for place in (path, path.resolve()) for folder in folders)

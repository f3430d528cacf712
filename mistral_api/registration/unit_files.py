"""Our files among the units of one folder: never somebody else's, and all of them or none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mistral_api.registration.errors import RegistrationError
from mistral_api.registration.names import SERVICES
from mistral_api.registration.units import file_name, is_ours, project_of


class UnitFiles:
    """The files of one project's services in one folder; one of a project that is gone (moved, say) is ours too."""

    def __init__(self, folder: Path, project: Path) -> None:
        self.folder = folder
        self._project = str(project)

    def written(self) -> dict[Path, str]:
        """Those that we have written for the project, with their text. Raises RegistrationError."""
        return {path: text for path, text in self._there().items() if is_ours(text) and self._may_replace(text)}

    def require_free(self, paths: Iterable[Path]) -> None:
        """Refuse to replace what is not ours, or belongs to another copy of the project."""
        there = self._there()
        for path in paths:
            text = there.get(path)
            if text is None:
                continue
            if not is_ours(text):
                raise RegistrationError(f"'{path}' was not written by this command; move it away first.")
            if not self._may_replace(text):
                raise RegistrationError(f"'{path}' runs the project in '{project_of(text)}': uninstall it there first.")

    @contextlib.contextmanager
    def replaced(self, texts: Mapping[Path, str]) -> Iterator[None]:
        """Write these; everything is as before when the body fails. Raises RegistrationError."""
        before = self._there()
        try:
            for path, text in texts.items():
                _write(path, text)
            yield
        except (OSError, RegistrationError) as error:
            for path in texts:
                path.unlink(missing_ok=True)
            for path, text in before.items():
                _write(path, text)
            if isinstance(error, OSError):
                raise RegistrationError(f"'{error.filename}' cannot be written: {error.strerror}.") from error
            raise

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files of ours. Raises RegistrationError."""
        for path in paths:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise RegistrationError(f"'{path}' cannot be removed: {error.strerror}.") from error

    def _may_replace(self, text: str) -> bool:
        project = project_of(text)
        return project == self._project or _is_gone(project)

    def _there(self) -> dict[Path, str]:
        """Whatever has the name of one of our units."""
        paths = [self.folder / file_name(service) for service in SERVICES]
        try:
            return {path: path.read_text(encoding="utf-8") for path in paths if path.exists()}
        except (OSError, ValueError) as error:
            raise RegistrationError(f"The units in '{self.folder}' cannot be read: {error}.") from error


def _is_gone(folder: str) -> bool:
    """Whether it is certain that there is no such folder: one that cannot be looked at may be there."""
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return folder != ""
    except OSError:
        return False
    return False


def _write(path: Path, text: str) -> None:
    """Whole or not at all; readable to everyone, as units are. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        writing.write_text(text, encoding="utf-8")
        writing.chmod(0o644)
        writing.replace(path)
    finally:
        writing.unlink(missing_ok=True)

"""Getting one file's bytes: going on where an interrupted attempt ended, and trying again when a connection breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from mistral_api.models.errors import DamagedFile, PullError
from mistral_api.models.failures import sentence_of
from mistral_api.models.hub import Hub, RemoteFile

# Seconds before each attempt that follows one without a single new byte; after the last of them it is given up.
PAUSES = (1.0, 2.0, 4.0)


class Transfer:
    """One file on its way into ``path``, which holds its first bytes already where it exists.

    ``received`` is told how many bytes the file has, whenever that changes.
    """

    def __init__(self, hub: Hub, remote: RemoteFile, path: Path, received: Callable[[int], None]) -> None:
        self._hub = hub
        self._remote = remote
        self._path = path
        self._received = received

    def run(self) -> None:
        """Until all bytes are there. Raises PullError, and OSError of the disk; what has come stays for the next."""
        fruitless = 0
        with self._path.open("ab") as file:
            while (before := file.tell()) != self._remote.size:
                error = self._attempt(file, before)
                fruitless = 0 if file.tell() > before else fruitless + 1
                if error is not None and file.tell() != self._remote.size:
                    self._pause(error, fruitless)

    def _attempt(self, file: BinaryIO, start: int) -> Exception | None:
        """Write what comes from ``start`` on; answers why it ended too early, where that may pass."""
        try:
            with self._hub.opened(self._remote, start) as body:
                if body.start < start:
                    file.truncate(body.start)
                self._write(file, body.pieces)
        except HfHubHTTPError as error:
            if error.response.status_code < 500:
                raise self._given_up(error) from error
            return error
        except httpx2.TransportError as error:
            return error
        except httpx2.HTTPError as error:
            raise self._given_up(error) from error
        finally:
            file.seek(0, 2)
        return None if file.tell() == self._remote.size else httpx2.RemoteProtocolError("the answer was too short")

    def _write(self, file: BinaryIO, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            file.write(piece)
            have = file.tell()
            if have > self._remote.size:
                file.truncate(0)
                raise DamagedFile(f"{self._hub.host} sent more bytes of {self._remote.source.name} than it announced.")
            self._received(have)

    def _pause(self, error: Exception, fruitless: int) -> None:
        if fruitless > len(PAUSES):
            raise self._given_up(error) from error
        time.sleep(PAUSES[max(fruitless, 1) - 1])

    def _given_up(self, error: Exception) -> PullError:
        return PullError(sentence_of(error, self._hub.host, self._remote.source))

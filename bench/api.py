"""``python -m bench.api PORT [--unrecorded]``: the API alone, in front of a model server that runs already."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

import waitress

from bench.running import RunningStack, free_port, running_module
from mistral_api import create_app
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.recording.checkpoints import Progress
from mistral_api.recording.exchange import Exchange
from mistral_api.recording.recorder import Recorder, RecordingState
from mistral_api.services import services_of
from mistral_api.serving.__main__ import SWITCH_SECONDS


class NoRecorder(Recorder):
    """A recorder that records nothing, to measure requests without a journal."""

    def start(self) -> None:
        """Do nothing."""

    def begin(self, exchange: Exchange, progress: Progress) -> int | None:
        """Record nothing."""
        return None

    def end(self, position: int | None, exchange: Exchange) -> None:
        """Record nothing."""

    def state(self) -> RecordingState:
        """Return a healthy state."""
        return RecordingState(healthy=True)


@contextlib.contextmanager
def running_api(running: RunningStack, *options: str, **settings: str) -> Iterator[tuple[str, int]]:
    """Run another API process on the database and the model server of a running stack; yield its host and port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mistral-api-bench-") as folder:
        environment = os.environ | {
            "DATABASE_URL": start_embedded_postgres(running.data_dir).url,
            "MODEL_SERVER_PORT": str(running.model_server[1]),
            "MODEL_SERVER_API_KEY": running.model_server_key,
            "DATA_DIR": folder,
            "LOG_LEVEL": "WARNING",
            **settings,
        }
        with running_module(["bench.api", str(port), *options], port, environment):
            yield "127.0.0.1", port


def main() -> None:
    """Serve until SIGTERM."""
    app = create_app()
    if "--unrecorded" in sys.argv:
        services_of(app.extensions).recorder.__class__ = NoRecorder
    sys.setswitchinterval(SWITCH_SECONDS)
    waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=64, channel_request_lookahead=1)


if __name__ == "__main__":
    main()

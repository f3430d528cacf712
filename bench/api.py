"""``python -m bench.api PORT``: the API alone, in front of a model server that runs already."""

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
from mistral_api.serving.interpreter import set_for_serving


@contextlib.contextmanager
def running_api(running: RunningStack, **settings: str) -> Iterator[tuple[str, int]]:
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
        with running_module(["bench.api", str(port)], port, environment):
            yield "127.0.0.1", port


def main() -> None:
    """Serve until SIGTERM."""
    app = create_app()
    set_for_serving()
    waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=64, channel_request_lookahead=1)


if __name__ == "__main__":
    main()

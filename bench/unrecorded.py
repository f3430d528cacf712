"""``python -m bench.unrecorded``: ``bin/serve`` that records nothing, to measure what recording costs."""

from __future__ import annotations

import sys
from typing import Any

from mistral_api.recording.recorder import Recorder
from mistral_api.serving.__main__ import main


def _record_nothing(*_arguments: Any, **_options: Any) -> None:
    """Stand for :meth:`Recorder.begin` and :meth:`Recorder.end`."""


if __name__ == "__main__":
    Recorder.begin = Recorder.end = _record_nothing  # type: ignore[method-assign]
    sys.exit(main([]))

"""Record that ``.venv`` is set up, as bin/environment does at the end of a set-up. Windows' Python runs this."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bin"))

from environment.paths import VENV
from environment.record import Record, fingerprint

if __name__ == "__main__":
    Record(fingerprint(), ("test",), str(VENV)).write()

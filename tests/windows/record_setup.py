"""Record that ``.venv`` is set up, as bin/bootstrap.py does at the end of a set-up. Windows' Python runs this."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "bin"))

import bootstrap

if __name__ == "__main__":
    record = {"fingerprint": bootstrap._fingerprint(), "extras": ["test"]}
    bootstrap.RECORD.write_text(json.dumps(record), encoding="utf-8")

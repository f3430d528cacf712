"""``python -m mistral_api.cli``: ``mistral-api``, for processes of ours that run one of its commands."""

from __future__ import annotations

from mistral_api.cli import main

if __name__ == "__main__":
    main(prog_name="mistral-api")

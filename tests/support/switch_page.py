"""The page of llama.cpp's switches, made of the bundled engine's table.

``python -m tests.support.switch_page > docs/switches.md`` writes it anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from mistral_api.embedded.engine.flag import Flag
from mistral_api.embedded.engine.switches import GROUPS
from mistral_api.embedded.engine.switches.left_out import LEFT_OUT

_HEAD = """# llama.cpp's switches

The model server is llama.cpp's, and has switches of its own. Set one as a variable, in `.env` or in the environment:

    LLAMA_ARG_CACHE_RAM=1024
    LLAMA_ARG_SPEC_TYPE=ngram-simple

- A switch that is on or off takes `1` or `0`. `LLAMA_ARG_NO_…` switches off what a flag `--no-…` does.
- Switches for the embedding server begin with `EMBEDDING_LLAMA_ARG_`.
- A setting of ours wins over the switch for the same thing: `CONTEXT_SIZE` over `LLAMA_ARG_CTX_SIZE`, `PARALLEL` over
  `LLAMA_ARG_N_PARALLEL`, and so on. Only `PROMPT_CACHE_MIB` gives way to `LLAMA_ARG_CACHE_RAM`.
- `mistral-api settings` shows the switches that are set, and which of them have no effect, with the reason. So does the
  log when the model server starts.
- The bundled engine refuses a value that is not allowed, and says what is.
  `python -m mistral_api.embedded.engine --help` lists all of this.
- Variables marked * are ours: llama.cpp has only the flag. A `llama-server` of your own gets the flag in their place.

Names and meanings are those of llama.cpp b11549, which the bundled engine is made of. A newer or older `llama-server`
of your own may have others; it takes all that it knows.
"""


def switch_page() -> str:
    """Return the page as Markdown."""
    lines = [_HEAD]
    for group in GROUPS:
        lines += [f"## {group.title}", "", "| variable | flag | what it does |", "| --- | --- | --- |"]
        lines += [*map(_row, group.flags), ""]
    lines += ["## Left out by the bundled engine", "", *_left_out()]
    return "\n".join(lines) + "\n"


def _row(flag: Flag) -> str:
    star = "" if flag.llama_variable else " *"
    names = ", ".join(f"`{name}`" for name in (*flag.names, *flag.off))
    return f"| `{flag.variable}`{star} | {names} | {flag.meaning.replace('|', '/')} |"


def _left_out() -> Iterator[str]:
    for group in LEFT_OUT:
        yield f"- {', '.join(f'`{name}`' for name in group.flags if name.startswith('--'))}: {group.reason}."


if __name__ == "__main__":
    sys.stdout.write(switch_page())

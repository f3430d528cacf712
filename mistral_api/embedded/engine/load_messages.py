"""How much the engine says of itself: more while it loads the model than while it serves requests.

The messages of the load say on which devices it computes and what memory it takes there; the supervisor reads them
(``supervisor/load_report.py``). llama.cpp prints them from verbosity 4 on (common/log.h, ``LOG_LEVEL_TRACE``), and then
three times as many lines for each request, and one for each probe. So the verbosity is lowered once the model is
loaded. The function for that is llama.cpp's own (common/log.h, ``common_log_set_verbosity_thold``); xllamacpp has no
method for it, but its library exports it on Linux. Where it does not, the supervisor leaves those lines out.
"""

from __future__ import annotations

import contextlib
import ctypes

from mistral_api.embedded.engine.library import xllamacpp

LOADING_VERBOSITY, SERVING_VERBOSITY = 4, 3
# The name that C++ gives to ``void common_log_set_verbosity_thold(int)`` (Itanium C++ ABI, "Mangling").
_SET_VERBOSITY = "_Z30common_log_set_verbosity_tholdi"


def end_load_messages() -> None:
    """Have llama.cpp print from now on what it prints by default, where its library lets us."""
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL(xllamacpp.xllamacpp.__file__), _SET_VERBOSITY)(SERVING_VERBOSITY)

"""Formats of strings as patterns: those of JSON Schema that a pattern can say.

``date`` has no 31 April and no 29 February but in leap years, and no year 0 (which Python's calendar does not have
either); ``date-time`` begins with the year 1000. ``time`` has an offset, as RFC 3339 demands, and no leap seconds. An
address in ``ipv6`` has no zone.
``duration`` is that of ISO 8601 without years and months. ``email`` and ``hostname`` are the usual form of these, and
not all that their RFCs allow.
"""

from __future__ import annotations

_LEAP_IN_CENTURY = "(0[48]|[2468][048]|[13579][26])"
_LEAP_CENTURY = "(0[48]|[2468][048]|[13579][26])00"
_DAY = r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
_YEAR = r"(000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_DATE = f"({_YEAR}-{_DAY}|([0-9]{{2}}{_LEAP_IN_CENTURY}|{_LEAP_CENTURY})-02-29)"
# From the year 1000 on: so it is short enough to need no trial (``wire.constraint_cost``).
_LEAP_YEAR = f"([1-9][0-9]{_LEAP_IN_CENTURY}|([2468][048]|[13579][26])00)"
_DATE_OF_TIME = f"([1-9][0-9]{{3}}-{_DAY}|{_LEAP_YEAR}-02-29)"
_HOUR_AND_MINUTE = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR_AND_MINUTE}:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_HOUR_AND_MINUTE})"
_MINUTES = "[0-9]{1,4}M([0-9]{1,4}S)?"
_TIME_SPAN = f"([0-9]{{1,4}}H({_MINUTES})?|{_MINUTES}|[0-9]{{1,4}}S)"
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_GROUP = "[0-9a-fA-F]{1,4}"
_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"


def _ipv6() -> str:
    """Eight groups, or fewer with ``::`` in the place of one or more."""
    shortened = "|".join(
        f"({_GROUP}(:{_GROUP}){{0,{before - 1}}})?::({_GROUP}(:{_GROUP}){{0,{6 - before}}})?"
        if before
        else f"::({_GROUP}(:{_GROUP}){{0,6}})?"
        for before in range(7)
    )
    return f"(({_GROUP}:){{7}}{_GROUP}|{shortened})"


# Patterns that match the whole string.
FORMAT_PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE_OF_TIME}T{_TIME}$",
    "duration": rf"^P([0-9]{{1,4}}D(T{_TIME_SPAN})?|T{_TIME_SPAN}|[0-9]{{1,4}}W)$",
    "uuid": "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
    "ipv4": rf"^({_BYTE}\.){{3}}{_BYTE}$",
    "ipv6": f"^{_ipv6()}$",
    "email": r"^[a-zA-Z0-9_+-]{1,40}(\.[a-zA-Z0-9_+-]{1,20})?@" + rf"({_LABEL}\.){{1,4}}[a-zA-Z]{{2,20}}$",
    "hostname": rf"^({_LABEL}\.){{0,4}}{_LABEL}$",
}

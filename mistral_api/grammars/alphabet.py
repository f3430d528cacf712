"""The alphabet of an expression: sets of characters that no part of it tells apart, by numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from mistral_api.grammars.characters import CharacterSet, from_ranges
from mistral_api.grammars.errors import Untranslatable
from mistral_api.grammars.time_limit import check_time

MOST_LETTERS = 4_000
_TOO_MANY = "it tells too many characters apart"


class Alphabet:
    """Disjoint sets of characters, the letters, of which each set of an expression is made up.

    Raises Untranslatable where there are more than 4,000.
    """

    def __init__(self, sets: Iterable[CharacterSet]) -> None:
        self._different = list(dict.fromkeys(sets))
        if len(self._different) > MOST_LETTERS:
            raise Untranslatable(_TOO_MANY)
        # A letter is known by the sets that it is part of: bit n stands for the set with the number n.
        self._members: dict[int, list[tuple[int, int]]] = self._split()
        self.letters: list[CharacterSet] = [from_ranges(ranges) for ranges in self._members.values()]

    def _split(self) -> dict[int, list[tuple[int, int]]]:
        """Return the ranges of each letter: along all code points, a set begins or ends at each edge."""
        edges: dict[int, int] = {}
        for number, each in enumerate(self._different):
            check_time()
            for edge in itertools.chain.from_iterable((low, high + 1) for low, high in each.ranges):
                edges[edge] = edges.get(edge, 0) ^ 1 << number
        members: dict[int, list[tuple[int, int]]] = {}
        inside = 0
        for low, following in itertools.pairwise(sorted(edges)):
            inside ^= edges[low]
            found = from_ranges([(low, following - 1)]).ranges if inside else ()
            if found:
                members.setdefault(inside, []).extend(found)
            if len(members) > MOST_LETTERS:
                raise Untranslatable(_TOO_MANY)
        return members

    def letters_by_set(self) -> dict[CharacterSet, int]:
        """Return the letters that each set is made up of, as a number: bit n stands for the letter n."""
        found: dict[CharacterSet, int] = {}
        last_first = list(self._members)[::-1]
        for number, each in enumerate(self._different):
            check_time()
            found[each] = int("".join("1" if sets >> number & 1 else "0" for sets in last_first) or "0", 2)
        return found

    def letter_of(self, code: int) -> int | None:
        """Return the number of the letter that a character is part of; None where it is part of none."""
        return next((number for number, letters in enumerate(self.letters) if code in letters), None)

"""Texts as people and models write them, made from a number: words, short words, paths, addresses, Chinese, Russian.

Word n of the vocabulary is common for a small n and rare for a large n, as in any language.
"""

from __future__ import annotations

import random
from itertools import accumulate

VOCABULARY = 20_000
_SHORT_WORDS = ["a", "i", "is", "of", "to", "in", "it", "on", "at", "by", "we", "be", "as", "py", "js", "id", "v2", "c"]
_CONSONANTS, _VOWELS = "bcdfghklmnprstvz", "aeiou"
_RUSSIAN_CONSONANTS, _RUSSIAN_VOWELS = "бвгджзклмнпрст", "аеиоуыя"
_HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]


def _weights(count: int) -> list[float]:
    return list(accumulate((rank + 1) ** -0.9 for rank in range(count)))


def _syllables(number: int, consonants: str, vowels: str) -> str:
    """Return word ``number``: its digits in the number system of all syllables, four of them."""
    syllables, base = [], len(consonants) * len(vowels)
    for _ in range(4):
        number, digit = divmod(number * 7 + 3, base)
        syllables.append(consonants[digit % len(consonants)] + vowels[digit // len(consonants)])
    return "".join(syllables[: 2 + len(syllables[0]) * number % 3])


def english_word(rank: int) -> str:
    """Return the word of a rank; the word of each rank is another one."""
    return f"{_syllables(rank, _CONSONANTS, _VOWELS)}{_CONSONANTS[rank % 16]}{_CONSONANTS[rank // 16 % 16]}"


def russian_word(rank: int) -> str:
    """Return the Russian word of a rank."""
    return _syllables(rank, _RUSSIAN_CONSONANTS, _RUSSIAN_VOWELS) + "\u0442\u044c"


_WORDS = [english_word(rank) for rank in range(VOCABULARY)]
_WORD_WEIGHTS = _weights(VOCABULARY)
_RUSSIAN = [russian_word(rank) for rank in range(5000)]
_RUSSIAN_WEIGHTS, _HAN_WEIGHTS = _weights(5000), _weights(3000)


def make_text(source: random.Random) -> str:
    """Return the text of a message, 20 to 60 words long."""
    length = source.randrange(20, 60)
    kind = source.random()
    if kind < 0.10:
        return _sentence("".join(source.choices(_HAN, cum_weights=_HAN_WEIGHTS, k=length * 3)), source)
    if kind < 0.15:
        return " ".join(source.choices(_RUSSIAN, cum_weights=_RUSSIAN_WEIGHTS, k=length))
    words = source.choices(_WORDS, cum_weights=_WORD_WEIGHTS, k=length)
    words += source.choices(_SHORT_WORDS, k=length // 3)
    source.shuffle(words)
    if kind < 0.45:
        words.append(_name(source, *source.choices(_WORDS, k=4)))
    return " ".join(words).capitalize() + "."


def _sentence(characters: str, source: random.Random) -> str:
    cut = source.randrange(5, 20)
    return "\uff0c".join(characters[start : start + cut] for start in range(0, len(characters), cut)) + "\u3002"


def _name(source: random.Random, first: str, second: str, third: str, fourth: str) -> str:
    return source.choice(
        [
            f"/srv/{first}/{second}_{third}.py:{source.randrange(900)}",
            f"https://www.{first}.example/{second}/{third}?page={source.randrange(99)}",
            f"{first}{second.capitalize()}{third.capitalize()}()",
            f"{first}_{second}_{third}_{source.randrange(999)}",
            f"{first}.{second}@{third}.example",
        ]
    )

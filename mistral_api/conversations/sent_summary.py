"""What recognition looks at of a list of messages, for the process that has the index (``shared_recognition``).

A list may have thousands of messages and megabytes, of which the digests of the last two or three usually say all. So a
summary has these; where something else is looked at, :class:`Incomplete` is raised, and whoever has the messages
summarises more of them: what recognition can look at, and in the end everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TypedDict, TypeVar

from mistral_api.conversations.digest_tree import AnswerText, MessageDigests, SentDigests
from mistral_api.conversations.recognition import LONGEST_RUN, MOST_ANSWERS, MOST_NEW_MESSAGES

T = TypeVar("T")

# Of a list of so many messages everything is summarised at once.
SHORT_LIST = 8


class SummaryJson(TypedDict):
    """Some messages of a list, by their positions.

    ``length``, ``has_answer``: of the whole list. ``last_answers``: the positions of the last answers, and
    ``knows_answers`` whether these are all that are ever asked for. ``digests``: the digest of each message, in
    hexadecimal digits; ``answers``: which of them are answers, and whether these are distinctive; ``texts``: what is
    compared of their texts, unless these were left out.
    """

    length: int
    has_answer: bool
    last_answers: list[int]
    knows_answers: bool
    digests: list[tuple[int, str]]
    answers: list[tuple[int, bool]]
    texts: list[tuple[int, str, int]]


class Incomplete(Exception):
    """A summary lacks what is looked at."""


class SentSummary(SentDigests):
    """The digests of some messages of a list. Whatever is asked of others raises Incomplete."""

    def __init__(self, summary: SummaryJson) -> None:
        """``summary`` is what a function of this module returned in another process."""
        self._summary = summary
        self._digests = {position: bytes.fromhex(digest) for position, digest in summary["digests"]}
        self._answers = dict(summary["answers"])
        self._texts = {position: AnswerText(beginning, length) for position, beginning, length in summary["texts"]}

    def __len__(self) -> int:
        return self._summary["length"]

    @property
    def has_answer(self) -> bool:
        """Whether an assistant's message is among all the messages."""
        return self._summary["has_answer"]

    def answer_positions(self, most: int) -> Iterator[int]:
        """Yield the positions of the last answers."""
        yield from self._summary["last_answers"][:most]
        if not self._summary["knows_answers"]:
            raise Incomplete

    def digest(self, position: int | None) -> bytes:
        """Return a digest that was summarised."""
        return b"" if position is None else _known(self._digests, position)

    def is_answer(self, position: int) -> bool:
        """Return whether a message is an answer with a digest."""
        return bool(self.digest(position)) and position in self._answers

    def is_distinctive(self, position: int) -> bool:
        """Return whether an answer is distinctive."""
        return _known(self._answers, position)

    def text(self, position: int) -> AnswerText:
        """Return the text of an answer that was summarised with it."""
        return _known(self._texts, position)


def _known(values: Mapping[int, T], position: int) -> T:
    try:
        return values[position]
    except KeyError:
        raise Incomplete from None


def summaries_to_find(sent: MessageDigests) -> Iterator[SummaryJson]:
    """Yield summaries for a search, each of more messages: the last one has all that a search looks at."""
    if len(sent) > SHORT_LIST:
        for last in sent.answer_positions(1):
            yield _summary(sent, [last], _with_one_before(sent, last), knows_answers=False)
    yield _searched(sent)


def summaries_to_note(sent: MessageDigests, *, follows_known: bool) -> Iterator[SummaryJson]:
    """Yield summaries of a list that is to be remembered, each of more messages; the last one has all of them.

    ``follows_known``: the list follows a message that its client has named.
    """
    if len(sent) > SHORT_LIST:
        for last in sent.answer_positions(0 if follows_known else 1):
            if len(sent) - last <= MOST_NEW_MESSAGES:
                places = {*_with_one_before(sent, last), *range(last, len(sent))}
                yield _summary(sent, [last], places, knows_answers=False)
        yield _searched(sent, _ends(sent))
    answers = list(sent.answer_positions(MOST_ANSWERS))
    yield _summary(sent, answers, range(len(sent)), knows_answers=True, with_text=True)


def _searched(sent: MessageDigests, others: Iterable[int] = ()) -> SummaryJson:
    """Return a summary of all that a search looks at."""
    answers = list(sent.answer_positions(MOST_ANSWERS))
    places = set(others)
    for answer in answers:
        places.update(_with_run_before(sent, answer))
    return _summary(sent, answers, places, knows_answers=True, with_text=True)


def _with_one_before(sent: MessageDigests, position: int) -> range:
    """Return the places of a message, of the one before it with a digest, and of all between them."""
    before = sent.before(position)
    return range(0 if before is None else before, position + 1)


def _with_run_before(sent: MessageDigests, position: int) -> range:
    """Return the places of a message and of the longest run before it that is compared, and one more."""
    begin = _back(sent, position, LONGEST_RUN + 1)
    return range(begin, position + 1)


def _ends(sent: MessageDigests) -> Iterator[int]:
    """Yield the places at which a list may be new: its beginning, what follows the last answer, and its end."""
    yield from range(min(MOST_NEW_MESSAGES, len(sent)))
    for last in sent.answer_positions(1):
        yield from range(last, min(last + MOST_NEW_MESSAGES, len(sent)))
    yield from range(_back(sent, len(sent), MOST_NEW_MESSAGES + 1), len(sent))


def _back(sent: MessageDigests, position: int, most: int) -> int:
    """Return the place ``most`` messages with a digest before a position, or the beginning."""
    places = (number for number in range(position - 1, -1, -1) if sent.digest(number))
    return next(islice(places, most - 1, None), 0)


def _summary(
    sent: MessageDigests,
    last_answers: list[int],
    places: Iterable[int],
    *,
    knows_answers: bool,
    with_text: bool = False,
) -> SummaryJson:
    known = sorted(places)
    answers = [place for place in known if sent.is_answer(place)]
    texts = [(place, sent.text(place)) for place in answers] if with_text else []
    return {
        "length": len(sent),
        "has_answer": sent.has_answer,
        "last_answers": last_answers,
        "knows_answers": knows_answers,
        "digests": [(place, sent.digest(place).hex()) for place in known],
        "answers": [(place, sent.is_distinctive(place)) for place in answers],
        "texts": [(place, text.beginning, text.length) for place, text in texts],
    }

"""Compressed request bodies: the codings of ``Content-Encoding`` (RFC 9110, section 8.4), undone piece by piece.

What a coding makes of a body is bounded before it is there: each step gives pieces of bounded size, and stops at the
largest body that is allowed. So a few bytes that stand for gigabytes cost no more than an honest body. Where several
codings were applied, each of them has that bound: what they make of each other may be larger than what comes out.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import brotli

from mistral_api.errors import ApiError, InvalidRequest, MalformedRequest, refused_request

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# The pieces that are read and made, in bytes.
PIECE_BYTES = 1 << 16
# A body may be compressed in so many parts (members, frames) one after the other. Empty ones would cost time.
MOST_PARTS = 1024
MOST_CODINGS = 3
# The window of zstd in HTTP has 8 MiB at most (RFC 9659).
_ZSTD_WINDOW = {int(zstd.DecompressionParameter.window_log_max): 23}
_RAW_DEFLATE, _ZLIB, _GZIP = -zlib.MAX_WBITS, zlib.MAX_WBITS, 16 + zlib.MAX_WBITS
TAKEN = ("gzip", "deflate", "zstd", "br", "identity")


class Decoder(Protocol):
    """Undoes one coding of one part of a body.

    ``decode`` takes data and gives a piece; with no data it gives the next one, until ``wants_data``.
    """

    @property
    def ended(self) -> bool:
        """Whether the part has ended."""

    @property
    def rest(self) -> bytes:
        """What followed it."""

    @property
    def wants_data(self) -> bool:
        """Whether the next piece needs more data."""

    def decode(self, data: bytes) -> bytes:
        """Return a piece. Raises an exception of its library for data that it did not make."""


class _Zlib:
    """``gzip`` and ``deflate``."""

    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.decompressobj(window_bits)
        self._full = False

    @property
    def ended(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data

    @property
    def wants_data(self) -> bool:
        return not (self._stream.unconsumed_tail or self._full)

    def decode(self, data: bytes) -> bytes:
        piece = self._stream.decompress(self._stream.unconsumed_tail + data, PIECE_BYTES)
        # Of a full piece zlib may hold back a part, although it has taken all data.
        self._full = len(piece) >= PIECE_BYTES and not self._stream.eof
        return piece


class _Zstd:
    """``zstd``."""

    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor(options=_ZSTD_WINDOW)

    @property
    def ended(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data

    @property
    def wants_data(self) -> bool:
        return self._stream.needs_input

    def decode(self, data: bytes) -> bytes:
        return self._stream.decompress(data, PIECE_BYTES)


class _Brotli:
    """``br``, which has one part and nothing after it: the library refuses the rest."""

    rest: bytes = b""

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._full = False

    @property
    def ended(self) -> bool:
        return bool(self._stream.is_finished())

    @property
    def wants_data(self) -> bool:
        return bool(self._stream.can_accept_more_data()) and not self._full

    def decode(self, data: bytes) -> bytes:
        piece: bytes = self._stream.process(data, output_buffer_limit=PIECE_BYTES)
        self._full = len(piece) >= PIECE_BYTES  # as in zlib, more may be held back
        return piece


class _Deflate:
    """``deflate``: the format of zlib, or what some clients send for it, without its frame. Two bytes tell."""

    def __init__(self) -> None:
        self._beginning = b""
        self._inner: Decoder | None = None

    @property
    def ended(self) -> bool:
        return self._inner is not None and self._inner.ended

    @property
    def rest(self) -> bytes:
        return b"" if self._inner is None else self._inner.rest

    @property
    def wants_data(self) -> bool:
        return self._inner is None or self._inner.wants_data

    def decode(self, data: bytes) -> bytes:
        if self._inner is not None:
            return self._inner.decode(data)
        self._beginning += data
        if len(self._beginning) < 2:
            return b""
        framed = self._beginning[0] & 0x0F == zlib.DEFLATED and int.from_bytes(self._beginning[:2]) % 31 == 0
        self._inner = _Zlib(_ZLIB if framed else _RAW_DEFLATE)
        return self._inner.decode(self._beginning)


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib(_GZIP),
    "x-gzip": lambda: _Zlib(_GZIP),
    "deflate": _Deflate,
    "zstd": _Zstd,
    "br": _Brotli,
}


class UnsupportedCoding(InvalidRequest):
    """415: a coding that is not undone here. The header of the response names those that are (RFC 9110, 15.5.16)."""

    status = 415
    default_code = "unsupported_media_type"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} This server takes {', '.join(TAKEN[:-1])} and {TAKEN[-1]}.")
        self.headers["Accept-Encoding"] = ", ".join(TAKEN)


def content_codings(header: str) -> list[str]:
    """Return the codings that a header ``Content-Encoding`` names, in the order in which they were applied.

    Raises UnsupportedCoding.
    """
    codings = [each.strip().lower() for each in header.split(",")]
    codings = [each for each in codings if each not in ("", "identity")]
    unknown = next((each for each in codings if each not in _DECODERS), None)
    if unknown is not None:
        raise UnsupportedCoding(f"Unsupported Content-Encoding: '{_shown(unknown)}'.")
    if len(codings) > MOST_CODINGS:
        raise UnsupportedCoding(f"Unsupported Content-Encoding: more than {MOST_CODINGS} codings.")
    return codings


def _shown(coding: str) -> str:
    return coding.encode("ascii", "replace").decode()[:40]


def decoded_pieces(pieces: Iterable[bytes], codings: list[str], most: int) -> Iterator[bytes]:
    """Yield a body without its codings, of which the last was applied last, in pieces.

    Raises MalformedRequest for what is none of the coding's, or cut off, and InvalidRequest (413) as soon as a body is
    larger than ``most`` bytes.
    """
    for coding in reversed(codings):
        pieces = _without_coding(pieces, coding, most)
    yield from pieces


def _without_coding(pieces: Iterable[bytes], coding: str, most: int) -> Iterator[bytes]:
    size = 0
    try:
        for piece in _decode(pieces, _DECODERS[coding]):
            size += len(piece)
            if size > most:
                raise too_large()
            yield piece
    except (zlib.error, zstd.ZstdError, brotli.error, EOFError) as error:
        raise MalformedRequest(
            f"The body of the request could not be decompressed: it is no valid {coding}."
        ) from error


def too_large() -> ApiError:
    """Return a 413: decompressed, the body is larger than MAX_REQUEST_BYTES."""
    return refused_request(413, "")


def _decode(pieces: Iterable[bytes], begin: Callable[[], Decoder]) -> Iterator[bytes]:
    """Yield what the parts of a body stand for. Raises EOFError for one that is cut off, or has too many parts."""
    decoder: Decoder | None = None
    parts = 0
    for piece in pieces:
        data = piece
        while data:
            if decoder is None:
                parts += 1
                if parts > MOST_PARTS:
                    raise EOFError
                decoder = begin()
            yield from _decode_piece(decoder, data)
            data = b""
            if decoder.ended:
                data, decoder = decoder.rest, None
    if decoder is not None:
        raise EOFError


def _decode_piece(decoder: Decoder, data: bytes) -> Iterator[bytes]:
    """Yield all that can be made of one piece of data, up to the end of the part."""
    yield decoder.decode(data)
    while not (decoder.ended or decoder.wants_data):
        yield decoder.decode(b"")

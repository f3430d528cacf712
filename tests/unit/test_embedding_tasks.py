"""Embeddings and rerank requests: their checks, and how they are split into batches and joined."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import pytest

from mistral_api.embeddings.tasks import (
    EMBEDDINGS,
    MOST_ITEMS,
    RERANK,
    Batches,
    pack_floats,
    shorten,
    text_size,
    to_base64,
    unpack_floats,
)
from mistral_api.errors import InvalidRequest
from mistral_api.wire import EmbeddingsRequest, RerankRequest, load

SCHEMA = EmbeddingsRequest()


@pytest.mark.parametrize("given", ["x", ["a", "b"], [1, 2], [[1, 2], [3]], ["x"] * 2048, list(range(4096))])
def test_every_embedding_input_form_passes_unchanged(given: Any) -> None:
    payload = {"input": given, "encoding_format": "base64", "dimensions": 3, "user": "u", "unheard_of": 1}
    assert load(SCHEMA, payload) == payload


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": []}, "input", "empty_array"),
        ({"input": [[]]}, "input[0]", "empty_array"),
        ({"input": ["a", ""]}, "input[1]", "invalid_value"),
        ({"input": ["a", 1]}, "input[1]", "invalid_type"),
        ({"input": [1, "a"]}, "input[1]", "invalid_type"),
        ({"input": [[1], "a"]}, "input[1]", "invalid_type"),
        ({"input": [[1], [-1]]}, "input[1][0]", "integer_below_min_value"),
        ({"input": [True]}, "input[0]", "invalid_type"),
        ({"input": {"text": "a"}}, "input", "invalid_type"),
        ({"input": ["x"] * 2049}, "input", "array_above_max_length"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format", "invalid_value"),
        ({"input": "x", "dimensions": 0}, "dimensions", "integer_below_min_value"),
        ({"input": "x", "dimensions": "many"}, "dimensions", "invalid_type"),
        ({"input": "x", "model": 7}, "model", "invalid_type"),
    ],
)
def test_bad_embeddings_request_is_refused_by_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        load(SCHEMA, fields)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_batches_contain_every_item_once_in_order() -> None:
    items = ["x" * size for size in (1, 5000, 10, 10, 300, 1, 1)]
    portions = Batches(items)
    found: list[Any] = []
    for first, portion in portions:
        assert first == len(found)
        assert portion
        found += portion
        portions.took(0.5)
    assert found == items


def test_batch_size_follows_the_measured_speed() -> None:
    portions, sizes = Batches(["x" * 64] * 3000), []
    for _, portion in portions:
        sizes.append(len(portion))
        portions.took(0.01 if len(sizes) < 6 else 2.0)
    assert sizes[:5] == [4, 16, 64, 256, 256]
    assert max(sizes) == MOST_ITEMS
    assert sizes[-2] < 32  # slow again: smaller each time, and never empty
    assert sum(sizes) == 3000


def test_rerank_batch_size_counts_the_query_with_each_document() -> None:
    lone = [len(portion) for _, portion in Batches(["doc"] * 8, extra_bytes=300)]
    assert lone == [1] * 8
    assert text_size([1, 2, 3]) == 12


def test_vectors_are_equal_from_numbers_and_from_base64() -> None:
    raw = struct.pack("<3f", 0.5, -0.25, 1.0)
    assert pack_floats([0.5, -0.25, 1]) == pack_floats(base64.b64encode(raw).decode()) == raw
    assert unpack_floats(raw) == (0.5, -0.25, 1.0)
    assert base64.b64decode(to_base64(raw)) == raw


@pytest.mark.parametrize("nonsense", ["", "AAA", "AAAA", "no base64!", [], ["a"], [None], None, {}, [1e300]])
def test_invalid_embedding_vector_is_refused(nonsense: Any) -> None:
    with pytest.raises(ValueError, match="not an embedding"):
        pack_floats(nonsense)


def test_embedding_vector_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        unpack_floats(struct.pack("<2f", 1.0, math.nan))


def test_shortened_vector_has_length_1_and_a_zero_vector_stays_zero() -> None:
    assert unpack_floats(shorten(struct.pack("<3f", 3.0, 4.0, 9.0), 2)) == pytest.approx((0.6, 0.8))
    assert unpack_floats(shorten(struct.pack("<3f", 0.0, 0.0, 9.0), 2)) == (0.0, 0.0)


def test_embedding_payload_omits_fields_that_the_api_handles() -> None:
    payload: Any = {"model": "m", "input": "x", "dimensions": 2, "user": "u", "embd_normalize": 2}
    sent = EMBEDDINGS.upstream_payload(payload, ["x"])
    assert sent == {"model": "m", "input": ["x"], "embd_normalize": 2, "encoding_format": "base64"}
    payload = {"query": "q", "documents": ["d"], "top_n": 1, "texts": ["another form"], "return_documents": True}
    assert RERANK.upstream_payload(payload, ["d"]) == {"query": "q", "documents": ["d"]}


def test_equal_rerank_scores_keep_the_document_order() -> None:
    payload = load(RerankRequest(), {"query": "q", "documents": ["a", "b", "c"], "top_n": 2})
    assert [each["index"] for each in RERANK.body(payload, [1.0, 2.0, 2.0])["results"]] == [1, 2]
    with pytest.raises(ValueError, match="not a number"):
        RERANK.read(payload, {"results": [{"index": 0, "relevance_score": math.inf}]})

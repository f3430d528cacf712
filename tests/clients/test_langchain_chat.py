"""The standard tests of langchain-tests, over chat completions."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from tests.support.langchain_chat import OverTheStack

pytestmark = [
    # The openai package's own parse() does not type what it parsed.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    # A standard test asks for what langchain-openai advises against.
    pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning"),
]


class TestChatCompletions(OverTheStack):
    """Streams are asked for their usage, as OpenAI's own service is by default."""

    api: ClassVar[dict[str, Any]] = {"stream_usage": True}

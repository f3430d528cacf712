"""What answers hold: the fields that are always there, and those that may be null or missing."""

from mistral_api.openapi.answers.anthropic import ANTHROPIC_COMPONENTS
from mistral_api.openapi.answers.conversations import CONVERSATION_COMPONENTS
from mistral_api.openapi.answers.figures import MONITORING_COMPONENTS
from mistral_api.openapi.answers.generation import GENERATION_COMPONENTS
from mistral_api.openapi.answers.llama_cpp import LLAMA_CPP_COMPONENTS
from mistral_api.openapi.answers.responses import RESPONSE_COMPONENTS
from mistral_api.openapi.shapes import Shape

COMPONENTS: dict[str, Shape] = (
    GENERATION_COMPONENTS
    | CONVERSATION_COMPONENTS
    | RESPONSE_COMPONENTS
    | ANTHROPIC_COMPONENTS
    | LLAMA_CPP_COMPONENTS
    | MONITORING_COMPONENTS
)

__all__ = ["COMPONENTS"]

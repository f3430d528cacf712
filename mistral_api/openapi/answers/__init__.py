"""What answers hold: the fields that are always there, and those that may be null or missing."""

from mistral_api.openapi.answers import anthropic, conversations, figures, generation, llama_cpp, responses
from mistral_api.openapi.shapes import Shape

COMPONENTS: dict[str, Shape] = {
    name: shape
    for family in (generation, conversations, responses, anthropic, llama_cpp, figures)
    for name, shape in family.COMPONENTS.items()
}

__all__ = ["COMPONENTS"]

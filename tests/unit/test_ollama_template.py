"""Ollama's templates of one turn are filled in as Go does it."""

from __future__ import annotations

import pytest

from mistral_api.generation.ollama_template import UnsupportedTemplate, fill_template

VALUES = {"System": "Be kind.", "Prompt": "Hello"}
LLAVA = "{{ .System }}\nUSER: {{ .Prompt }}\nASSISTANT: "
CHATML = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>"""


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (LLAVA, "Be kind.\nUSER: Hello\nASSISTANT: "),
        (
            CHATML,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("a  {{- .Prompt -}}  b", "aHellob"),
        ("{{/* nothing */}}x", "x"),
        ("{{ if .Suffix }}no{{ else if .System }}yes{{ else }}no{{ end }}", "yes"),
        ("{{ if .System }}{{ if .Suffix }}a{{ else }}b{{ end }}{{ else }}c{{ end }}", "b"),
        ("{{ $.System }}", "Be kind."),
        ("{ no } action }}", "{ no } action }}"),
        ("", ""),
    ],
)
def test_template_of_one_turn_is_filled_in(template: str, prompt: str) -> None:
    assert fill_template(template, VALUES) == prompt


def test_condition_is_false_for_a_value_that_is_absent_or_empty() -> None:
    template = "{{ if .System }}system{{ end }}{{ .Prompt }}"
    assert fill_template(template, {"Prompt": "p"}) == fill_template(template, {"System": "", "Prompt": "p"}) == "p"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ range .Messages }}{{ end }}", "range .Messages"),
        ("{{ if eq .Role }}x{{ end }}", "eq .Role"),
        ("{{ .Messages }}", ".Messages"),
        ("{{ end }}", "without an 'if'"),
        ("{{ if .System }}", "without an 'end'"),
        ("{{ .System", "does not end"),
        ("{{ if .System }}" * 99, "too deeply"),
    ],
)
def test_template_that_needs_more_of_go_is_refused(template: str, reason: str) -> None:
    with pytest.raises(UnsupportedTemplate, match=reason):
        fill_template(template, VALUES)

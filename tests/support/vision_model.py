"""A tiny model in the form of Mistral's that says in one sentence what it was sent, and a LoRA adapter for it.

Its weights are constructed, not trained. Each token has features: what it is (a word of the answer), and, where
``projector_file`` made it of an image or a sound, what that shows. Its one layer of attention looks at all tokens
alike, so it sums up what they show. The output follows a chain of words, and chooses by these sums where the chain
forks: "The image is red.", "The sound is high.", "The text is plain." With the adapter the colours are French.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, INNER, CONTEXT = 64, 2, 32, 4096
COLOURS, FRENCH, PITCHES = ("red", "green", "blue"), ("rouge", "vert", "bleu"), ("low", "high")
KINDS = ("image", "sound")
# What a token's embedding says, by index: that it is a token at all, which colours and pitches it shows, and of what
# kind it is. From SUMS on the attention adds up the same features of all tokens, and from WORDS on stands which word of
# the answer a token is.
IS_TOKEN, SHOWN = 0, {name: 1 + index for index, name in enumerate((*COLOURS, *PITCHES, *KINDS))}
SUMS, WORDS = 16, 32
# One token that shows something is enough among thousands. The word that comes next outweighs all that is shown.
SIGHT, WORD, FIRST_WORD, DEFAULT = 1e2, 1e6, 1e4, 0.1
SCALE = 1e3  # so that no temperature makes it say anything else

_CONTROL = ("[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]", "[BEGIN_AUDIO]")
_LEADING = ("The", "is", ".", "text", *KINDS)
_ENDING = ("plain", *COLOURS, *FRENCH, *PITCHES)
_TEMPLATE = """
{{- bos_token }}{% for message in messages %}
{%- if message.role == 'assistant' %}{{ message.content }}{{ eos_token }}
{%- else %}[INST]{{ message.content }}[/INST]{% endif %}{% endfor %}"""


def _vocabulary() -> list[tuple[str, gguf.TokenType]]:
    """Return the tokens as SentencePiece has them: a space is ``▁``, and what is no word is spelled in bytes."""
    special = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    bytes_ = [(f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)]
    words = [word if word in ("The", ".") else f"\u2581{word}" for word in (*_LEADING, *_ENDING)]
    normal = [(word, gguf.TokenType.NORMAL) for word in (*words, "\u2581")]
    return [*special, *bytes_, *((name, gguf.TokenType.CONTROL) for name in _CONTROL), *normal]


_TOKENS = _vocabulary()
_NUMBERS = {text.removeprefix("\u2581"): number for number, (text, _) in enumerate(_TOKENS)}
_EOS = 2


def write_vision_model(path: Path) -> Path:
    """Write the text model; it answers about images and sounds with the projector of ``projector_file``."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("Tiny Eyes")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in _TOKENS])
    writer.add_token_scores([0.0] * len(_TOKENS))
    writer.add_token_types([kind for _, kind in _TOKENS])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(_EOS)
    writer.add_unk_token_id(0)
    writer.add_chat_template(_TEMPLATE)
    for name, tensor in _weights().items():
        writer.add_tensor(f"{name}.weight", tensor)
    return finish(writer, path)


def finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    """Write what the writer holds, and return the path."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def zeros(*shape: int) -> np.ndarray:
    """Return a tensor of zeros, as llama.cpp takes it."""
    return np.zeros(shape, np.float32)


def _weights() -> dict[str, np.ndarray]:
    ones, square = np.ones(WIDTH, np.float32), (WIDTH, WIDTH)
    values, output = zeros(*square), zeros(*square)
    for feature in SHOWN.values():
        values[feature, feature] = 1
        output[SUMS + feature, feature] = SIGHT
    return {
        "token_embd": _embeddings(),
        "output": _choices(),
        "output_norm": ones,
        "blk.0.attn_norm": ones,
        "blk.0.ffn_norm": ones,
        "blk.0.attn_q": zeros(*square),
        "blk.0.attn_k": zeros(*square),
        "blk.0.attn_v": values,
        "blk.0.attn_output": output,
        "blk.0.ffn_gate": zeros(INNER, WIDTH),
        "blk.0.ffn_up": zeros(INNER, WIDTH),
        "blk.0.ffn_down": zeros(WIDTH, INNER),
    }


def _embeddings() -> np.ndarray:
    table = zeros(len(_TOKENS), WIDTH)
    table[:, IS_TOKEN] = 1
    for index, word in enumerate(_LEADING):
        table[_NUMBERS[word], WORDS + index] = 1
    for word in _ENDING:
        table[_NUMBERS[word], WORDS + len(_LEADING)] = 1
    return table


def _choices() -> np.ndarray:
    """Return the output: what each word follows, and which sums speak for it where several may follow."""
    table = zeros(len(_TOKENS), WIDTH)

    def follow(word: str, *former: str) -> None:
        for each in former:
            table[_NUMBERS[word], WORDS + (len(_LEADING) if each in _ENDING else _LEADING.index(each))] = WORD

    table[_NUMBERS["The"], IS_TOKEN] = FIRST_WORD  # after anything that is no word of the answer
    for default in ("text", _ENDING[0]):
        table[_NUMBERS[default], IS_TOKEN] = DEFAULT
    for kind in ("text", *KINDS):
        follow(kind, "The")
        follow("is", kind)
    for ending in _ENDING:
        follow(ending, "is")
    follow(".", _ENDING[0])
    table[_EOS, WORDS + _LEADING.index(".")] = WORD
    for word, feature in SHOWN.items():
        table[_NUMBERS[word], SUMS + feature] = 1
    return table * np.float32(SCALE)


def write_lora(path: Path) -> Path:
    """Write an adapter with which the colours' French names count twice as much as the others."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", len(COLOURS))
    down, up = zeros(len(COLOURS), WIDTH), zeros(len(_TOKENS), len(COLOURS))
    for index, (colour, french) in enumerate(zip(COLOURS, FRENCH, strict=True)):
        down[index, SUMS + SHOWN[colour]] = 2 * SCALE
        up[_NUMBERS[french], index] = 1
    writer.add_tensor("output.weight.lora_a", down)
    writer.add_tensor("output.weight.lora_b", up)
    return finish(writer, path)

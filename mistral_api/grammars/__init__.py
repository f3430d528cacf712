"""Regular expressions and lark grammars as what llama.cpp enforces: patterns of its JSON schemas, and GBNF."""

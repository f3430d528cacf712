"""JSON schemas that llama.cpp enforces exactly: what a client sends is rewritten, or refused with the part at fault.

Seen on the converter of llama.cpp (common/json-schema.cpp and common/json-schema-to-grammar.cpp), in the build that is
installed: it ignores ``minimum`` of numbers, ``multipleOf``, ``not``, ``if``, ``contains``, ``uniqueItems``,
``patternProperties``, ``propertyNames``, ``minProperties``, ``dependentRequired``, the siblings of ``$ref`` and
``anyOf``, the type of an ``enum``, and patterns that it cannot read. It makes an empty object of ``allOf`` without
properties, invalid JSON (``-03``) of ``{"type": "integer", "maximum": -3}``, keys that break out of their quotes where
``additionalProperties`` stands beside ``properties``, and one rule of the definitions ``a-b`` and ``a.b``. It refuses
``true`` and ``false`` as schemas, ``#``, and names with ``~1`` in references.

A schema is compiled to values (``values``), in which what stands together is merged (``compiler``, with ``parts``,
``types``, ``unions``, and a module for each type's keywords), and those are written as a schema of the few keywords
that the converter does enforce (``writer``), or where these cannot say it, as a grammar in GBNF (``grammar``). All of
it ends in time (``deadline``), and is remembered (``remembered``). ``enforced`` is for one schema, ``calls`` for the
forced call of one of several tools, ``admission`` for those of a request.
"""

"""The bundled engine: llama.cpp's own server in a process of ours, by the package ``xllamacpp``."""

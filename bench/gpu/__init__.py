"""Measurements on a borrowed machine with a graphics card: prepared here, built and measured there (docs/gpu.md)."""

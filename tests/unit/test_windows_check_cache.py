"""The cache of ``bin/test-windows``: what was interrupted or damaged is made again, what is whole is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.windows.cache import Cache


class _Maker:
    """Makes a part of two files, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "first").write_text("one", encoding="utf-8")
        self.made += 1
        (folder / "second").write_text("two", encoding="utf-8")


def test_whole_part_is_made_once(tmp_path: Path) -> None:
    make = _Maker()
    assert Cache(tmp_path).part("packages", "recipe", make) == Cache(tmp_path).part("packages", "recipe", make)
    assert make.made == 1


def test_another_recipe_is_another_part(tmp_path: Path) -> None:
    make = _Maker()
    assert Cache(tmp_path).part("packages", "old", make) != Cache(tmp_path).part("packages", "new", make)
    assert make.made == 2


@pytest.mark.parametrize("damage", ["changed", "deleted", "added", "no manifest", "half a manifest"])
def test_damaged_part_is_made_again(tmp_path: Path, damage: str) -> None:
    make = _Maker()
    part = Cache(tmp_path).part("packages", "recipe", make)
    file, manifest = part / "inner" / "first", part / "manifest.json"
    if damage == "changed":
        file.write_text("ONE", encoding="utf-8")
    elif damage == "deleted":
        file.unlink()
    elif damage == "added":
        (part / "third").touch()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(manifest.read_bytes()[:10])
    Cache(tmp_path).part("packages", "recipe", make)
    assert make.made == 2
    assert file.read_text(encoding="utf-8") == "one"


def test_interrupted_part_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).part("packages", "recipe", interrupted)
    (tmp_path / "making-packages-by-a-killed-process").mkdir()
    make = _Maker()
    Cache(tmp_path).part("packages", "recipe", make)
    assert make.made == 1
    assert not list(tmp_path.glob("making-*"))

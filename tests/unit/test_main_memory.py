"""The memory that programs may still take, within the limits of control groups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from mistral_api.hardware.main_memory import available_memory_bytes

MIB = 1 << 20


def _group(folder: Path, limit: str, taken: int = 0, files: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n", encoding="ascii")
    (folder / "memory.current").write_text(f"{taken}\n", encoding="ascii")
    (folder / "memory.stat").write_text(
        f"anon 1\ninactive_file {files}\nactive_file 0\nfile_mapped 7\n", encoding="ascii"
    )


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "cgroup"
    path.write_text("0::/user.slice/our.service\n", encoding="ascii")
    return path


def test_nearest_limit_counts_and_files_in_memory_do_not(tmp_path: Path, own: Path) -> None:
    groups = tmp_path / "groups"
    _group(groups / "user.slice/our.service", "max")
    _group(groups / "user.slice", str(100 * MIB), taken=60 * MIB, files=20 * MIB)
    assert available_memory_bytes(groups, own) == 60 * MIB


def test_container_has_its_limit_at_the_root(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/\n", encoding="ascii")
    _group(tmp_path / "groups", str(10 * MIB), taken=50 * MIB)
    assert available_memory_bytes(tmp_path / "groups", own) == 0


@pytest.mark.parametrize("text", ["", "garbage", "12:memory:/a\n"])
def test_without_groups_the_machine_has_what_is_free(tmp_path: Path, own: Path, text: str) -> None:
    own.write_text(text, encoding="ascii")
    _group(tmp_path / "groups", "nonsense")
    free = available_memory_bytes(tmp_path / "groups", own)
    assert abs(free - psutil.virtual_memory().available) < psutil.virtual_memory().total / 4

"""Only regular files of a bounded size are read."""

import os

import pytest

from plasticity_jax.storage import small_files


def test_only_regular_files_are_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"12345")
    monkeypatch.setattr(small_files, "LARGEST", 4)
    reasons = {
        "pipe": "Not a regular file",
        "loop": "Too many levels",
        ".": "Is a directory",
        "none": "No such file",
    }
    for name, reason in (reasons | {"large": "File too large"}).items():
        with pytest.raises(OSError, match=reason):
            small_files.read_bytes(tmp_path / name)
    with pytest.raises(OSError, match="Not a regular file"):
        small_files.read_bytes("/dev/zero")
    (tmp_path / "large").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("large")
    assert small_files.read_bytes(tmp_path / "link") == b"1234"

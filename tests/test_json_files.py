"""JSON files as they are, and as damage leaves them."""

import pytest

from plasticity_jax.json_files import read_json


def test_a_json_file_is_read(tmp_path):
    (tmp_path / "file").write_text('{"a": [1, 2.5, null, "\u00e9"]}', encoding="utf-8")
    assert read_json(tmp_path / "file") == read_json(str(tmp_path / "file")) == {"a": [1, 2.5, None, "\u00e9"]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'"\xc3\x28"',
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"{} {}",
    ],
    ids=["empty", "cut short", "no text", "no UTF-8", "byte order mark", "lists", "objects", "digits", "two"],
)
def test_damage_of_every_kind_is_a_value_error(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError) as told:
        read_json(tmp_path / "file")
    assert str(told.value)


def test_what_cannot_be_read_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "file")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)

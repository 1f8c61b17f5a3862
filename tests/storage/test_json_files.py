"""JSON files as they are, and as damage leaves them."""

import json
import math

import pytest

from plasticity_jax.storage.json_files import parse_json, read_json


def test_a_json_file_is_read(tmp_path):
    (tmp_path / "file").write_text('{"a": [1, 2.5, null, "\u00e9"]}', encoding="utf-8")
    assert (
        read_json(tmp_path / "file")
        == read_json(str(tmp_path / "file"))
        == {"a": [1, 2.5, None, "\u00e9"]}
    )


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
    ids=[
        "empty",
        "cut short",
        "no text",
        "no UTF-8",
        "byte order mark",
        "lists",
        "objects",
        "digits",
        "two",
    ],
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


def test_json_is_what_the_standard_library_reads(tmp_path):
    value = {
        "a": [1, -2.5e-3, True, None, "é\ud83d\ude00"],
        "b": {"c": {}, "d": [[]]},
        "large": 2**70,
        "": 1e308,
    }
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=True, indent=2)):
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        assert read_json(tmp_path / "x.json") == json.loads(text)


def test_not_a_number_is_read_where_allowed():
    found = parse_json(b'{"a": NaN, "b": -Infinity}', nan=True)
    assert math.isnan(found["a"])
    assert found["b"] == -math.inf
    assert parse_json(b'{"a": "NaN"}') == {"a": "NaN"}


@pytest.mark.parametrize(
    ("content", "clause"),
    [
        (b"", "it is not JSON: Expecting value"),
        (b"{", "it is not JSON: "),
        (b"[]", "it is JSON but not an object"),
        (b"3", "it is JSON but not an object"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "it has 'c' twice in one object"),
        (b'{"a": NaN}', "it holds NaN, where JSON has numbers"),
        (b'{"a": 1e999}', "its number 1e999 is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "its number 99999999999999999999 is too large"),
        (b'{"a": "\xff"}', "it is not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "it is not UTF-8 at byte 0"),
        (b'\xef\xbb\xbf{"a": 1}', "it is not JSON: "),
        (b"[" * 100_000, "it is nested more than 64 levels deep"),
        (b'{"a":' * 100_000, "it is nested more than 64 levels deep"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "it is nested more than 64 levels deep"),
    ],
)
def test_what_is_refused(content, clause):
    with pytest.raises(ValueError) as fault:
        parse_json(content)
    assert str(fault.value).startswith(clause)
    assert "\n" not in str(fault.value)


def test_as_deep_as_allowed():
    found = parse_json(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}")
    for _ in range(62):
        (found["a"],) = found["a"]
    assert found == {"a": []}

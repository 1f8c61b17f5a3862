"""Reading of small files: only regular ones, and JSON that says one thing."""

import json
import math
import os

import pytest

from plasticity_jax import small_files


def test_json_is_what_the_standard_library_reads(tmp_path):
    value = {"a": [1, -2.5e-3, True, None, "é\ud83d\ude00"], "b": {"c": {}, "d": [[]]}, "large": 2**70, "": 1e308}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=True, indent=2)):
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        assert small_files.read_json(tmp_path / "x.json") == json.loads(text)


def test_not_a_number_is_read_where_allowed():
    found = small_files.parse_json(b'{"a": NaN, "b": -Infinity}', nan=True)
    assert math.isnan(found["a"])
    assert found["b"] == -math.inf
    assert small_files.parse_json(b'{"a": "NaN"}') == {"a": "NaN"}


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
        small_files.parse_json(content)
    assert str(fault.value).startswith(clause)
    assert "\n" not in str(fault.value)


def test_as_deep_as_allowed():
    found = small_files.parse_json(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}")
    for _ in range(62):
        (found["a"],) = found["a"]
    assert found == {"a": []}


def test_only_regular_files_are_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "large").write_bytes(b"12345")
    monkeypatch.setattr(small_files, "LARGEST", 4)
    reasons = {"pipe": "Not a regular file", "loop": "Too many levels", ".": "Is a directory", "none": "No such file"}
    for name, reason in (reasons | {"large": "File too large"}).items():
        with pytest.raises(OSError, match=reason):
            small_files.read_bytes(tmp_path / name)
    with pytest.raises(OSError, match="Not a regular file"):
        small_files.read_bytes("/dev/zero")
    (tmp_path / "large").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("large")
    assert small_files.read_bytes(tmp_path / "link") == b"1234"

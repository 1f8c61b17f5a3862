"""Files damaged in small ways, always the same ones, and what every reader of ours does with them.

A reader raises what it promises, in one sentence that names the file, or returns what an
independent reader takes the damaged bytes for; it never raises anything else, hangs, or takes
memory that a number inside the file asked for.
"""

import contextlib
import pathlib
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

FEW, MANY = 50, 2000
NUMBERS = [FEW, pytest.param(MANY, marks=[pytest.mark.mutations, pytest.mark.slow])]
"""How many mutations of a file a test tries: parametrize `number` with it."""

_BYTES = (0, 1, 10, 32, 34, 39, 45, 48, 57, 91, 123, 127, 128, 255)
_HEADER = 256  # bytes at the beginning and at the end that are hit more often than others
_MEMORY = 2 << 30  # more than this and a reader believed a number that it should not have
_SECONDS = 60  # a guard against endless loops on a loaded machine


def mutated(content: bytes, number: int) -> bytes:
    """Returns mutation `number` of the content: a bit, byte, number or block of it changed, moved,
    added or removed.
    """
    generator = np.random.default_rng(number)
    size = len(content)

    def place() -> int:
        near = int(generator.integers(0, min(_HEADER, size) + 1))
        anywhere = int(generator.integers(0, size + 1))
        return (near, near, size - near, anywhere)[generator.integers(0, 4)]

    at, length = place(), int(2 ** generator.uniform(0, 8))
    before, block, after = content[:at], content[at : at + length], content[at + length :]
    one, rest = content[at : at + 1] or b"\0", content[at + 1 :]
    wide = (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**64 - 1)[
        generator.integers(0, 9)
    ]
    width, order = (4, 8)[generator.integers(0, 2)], ("little", "big")[generator.integers(0, 2)]
    field = (wide % 256**width).to_bytes(width, order)
    digits = (b"0", b"9" * 9, b"1152921504606846976", b"-1", b"1e9", b"true", b"{", b"[")[
        generator.integers(0, 8)
    ]
    other = place()
    return (
        lambda: before + bytes([one[0] ^ 1 << int(generator.integers(0, 8))]) + rest,
        lambda: before + bytes([_BYTES[generator.integers(0, len(_BYTES))]]) + rest,
        lambda: before + generator.bytes(1) + rest,
        lambda: before,
        lambda: before + after,
        lambda: before + block + block + after,
        lambda: before + bytes(len(block)) + after,
        lambda: before + generator.bytes(min(length, 8)) + block + after,
        lambda: before + digits + content[at + int(generator.integers(0, 4)) :],
        lambda: before + field + content[at + width :],
        lambda: (before + after)[:other] + block + (before + after)[other:],
        lambda: content + generator.bytes(length),
    )[generator.integers(0, 12)]()


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """A context that ends in MemoryError beyond 2 GiB more than now, and in TimeoutError after a
    minute.
    """

    def late(*_) -> None:
        raise TimeoutError(f"still at it after {_SECONDS} seconds")

    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limits, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY, limits[1]))
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def check(
    file: pathlib.Path,
    number: int,
    read: Callable[[], Any],
    right: Callable[[Any], bool],
    faults: tuple[type[Exception], ...],
    named: str = "",
    mutate: Callable[[bytes, int], bytes] = mutated,
) -> tuple[int, int]:
    """Damages `file` in `number` ways, one at a time, reads it, and puts it back; returns how many
    were refused and read.

    Args:
      read: the reader under test, of whatever the file is a part of.
      right: whether what it returned is right for the file as it is now.
      faults: what it may raise.
      named: what the sentence must have in it, by default the file's name.
      mutate: (content, number) -> damaged content.
    """
    content, refused = file.read_bytes(), 0
    try:
        for one in range(number):
            file.write_bytes(mutate(content, one))
            try:
                with bounded():
                    found = read()
                assert right(found), "another result than the file holds"
            except faults as fault:
                text, refused = str(fault), refused + 1
                assert "\n" not in text, f"mutation {one}: {text}"
                assert text.endswith("."), f"mutation {one}: {text}"
                assert (named or file.name) in text, f"mutation {one}: {text}"
            except BaseException as fault:
                raise AssertionError(
                    f"mutation {one} of {file.name}: {type(fault).__name__}: {fault}"
                ) from fault
    finally:
        file.write_bytes(content)
    return refused, number - refused

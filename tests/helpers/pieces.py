"""SentencePiece model files, written byte by byte, that several test files share."""

import string
import struct

from plasticity_jax.text.sentencepieces import BYTE, CONTROL, MARK, UNKNOWN, Piece

T5_SPECIAL = (Piece("<pad>", 0, CONTROL), Piece("</s>", 0, CONTROL), Piece("<unk>", 0, UNKNOWN))


def t5_like(count, special=T5_SPECIAL):
    """`count` pieces: the special ones first, as in T5's file, then the mark, the letters and some
    that never occur.
    """
    texts = [MARK, *string.ascii_lowercase]
    others = [f"<{i}>" for i in range(count - len(special) - len(texts))]
    return [*special, *(Piece(text, -1.0 - i / 128) for i, text in enumerate([*texts, *others]))]


def message(fields):
    """The bytes of a protocol buffer of (field number, int, float, str or bytes)."""

    def integer(value):
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += integer(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += integer(number << 3) + integer(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += integer(number << 3 | 2) + integer(len(value)) + value
    return out


def model_file(path, pieces, trainer=(), normalizer=()):
    """Writes a SentencePiece model. The spaces of a text are not normalised, since that needs no
    rules for a-z.
    """
    fields = [(1, message([(1, p.text), (2, float(p.score)), (3, p.type)])) for p in pieces]
    trainer = {3: 1, 35: int(any(p.type == BYTE for p in pieces)), **dict(trainer)}
    fields += [(2, message(trainer.items())), (3, message([(1, "identity"), *normalizer]))]
    path.write_bytes(message(fields))
    return path

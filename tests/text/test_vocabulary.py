"""Vocabularies against a plain best segmentation and against the SentencePiece library."""

import itertools
import os
import pathlib
import string
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.pieces import message, model_file

from plasticity_jax.datasets import DataError
from plasticity_jax.text import sentencepieces, vocabulary
from plasticity_jax.text.sentencepieces import (
    BYTE,
    CONTROL,
    MARK,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
)

MODELS = sorted(
    pathlib.Path(os.environ.get("PLASTICITY_DATA_DIR", "/nonexistent")).glob("t5_vocab/*.model")
)
WORDS, LETTERS = 6, 4
CHARACTERS = vocabulary.characters()
PAD, END = 1, 0


def small_pieces(ties=False):
    """Control pieces, then a piece for every letter and many of two to five symbols, as "ab",
    "▁cab" or "aXb".

    With `ties` scores are whole numbers, so that many segmentations are equally good.
    """
    generator = np.random.default_rng(1)
    texts = {MARK, *string.ascii_lowercase, "aXb", "\u00e9", "A"}
    while len(texts) < 300:
        size = generator.integers(1, 6)
        texts.add(
            (MARK if generator.random() < 0.4 else "")
            + "".join(generator.choice(list("abcd"), size))
        )
    score = {
        t: -float(generator.integers(3, 6)) if ties else -float(generator.uniform(4, 14))
        for t in sorted(texts)
    }
    control = [Piece("</s>", 0, CONTROL), Piece("<pad>", 0, CONTROL), Piece("<unk>", 0, UNKNOWN)]
    others = [
        Piece(f"{MARK}<extra>", 0, USER_DEFINED),
        Piece("<0x0A>", 0, BYTE),
        Piece(f"{MARK}abcd", 0, UNUSED),
    ]
    texts.discard(f"{MARK}abcd")
    return [*control, *others, *(Piece(t, float(np.float32(score[t]))) for t in sorted(texts))]


SMALL = vocabulary.from_pieces(small_pieces(), PAD, END)
ENCODE = jax.jit(SMALL.encode)  # always of letters [100, WORDS, LETTERS], so compiled once


def draw(seed, batch, words=WORDS, letters=LETTERS, alphabet=26):
    return jax.random.randint(jax.random.key(seed), (batch, words, letters), 0, alphabet)


def texts(letters):
    return [
        " ".join("".join(string.ascii_lowercase[c] for c in word) for word in row)
        for row in np.asarray(letters)
    ]


def spelled(characters):
    """Characters as text, without nothing; "?" is any other character."""
    alphabet = "\0" + string.ascii_lowercase + " ?"
    return ["".join(alphabet[c] for c in row if c) for row in np.asarray(characters)]


def best_segmentation(pieces, text):
    """Ids of the best segmentation: sums of scores in float32 over the whole text, of equal ones
    the longest last piece.
    """
    known = {p.text: (i, np.float32(p.score)) for i, p in enumerate(pieces) if p.type == 1}
    text = MARK + text.replace(" ", MARK)
    best = [(np.float32(0), [])]
    for end in range(1, len(text) + 1):
        ways = [
            (start, *known[text[start:end]]) for start in range(end) if text[start:end] in known
        ]
        best.append(
            max(
                ((best[s][0] + score, best[s][1] + [i]) for s, i, score in ways),
                key=lambda way: way[0],
            )
        )
    return best[-1][1]


def library(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # earlier versions break near ties in another way
        return pytest.importorskip("sentencepiece", "0.2.2").SentencePieceProcessor(
            model_file=str(path)
        )


def row_of(ids, symbols, size):
    return [*ids, symbols.end, *[symbols.pad] * (size - len(ids) - 1)]


def test_characters_have_one_id_each():
    letters = jnp.array([[[0, 1], [25, 2]]])
    np.testing.assert_array_equal(CHARACTERS.encode(letters), [[4, 5, 3, 29, 6, 1]])
    assert CHARACTERS.encode(letters).dtype == jnp.int32
    assert CHARACTERS.length(2, 2) == 6
    assert (CHARACTERS.size, CHARACTERS.pad, CHARACTERS.end, CHARACTERS.start) == (30, 0, 1, 2)


def test_characters_spell_what_was_encoded():
    letters = draw(0, 20)
    ids = CHARACTERS.encode(letters)
    assert ids.shape == (20, CHARACTERS.length(WORDS, LETTERS))
    assert spelled(CHARACTERS.spell(ids)) == texts(letters)


def test_characters_spell_any_ids():
    """Padding and start are nothing, unknown ids another character, and all from the end on is
    nothing.
    """
    ids = jnp.array(
        [[4, 0, 5, 2, 3, 6, 1, 7], [1, 4, 4, 4, 4, 4, 4, 4], [29, 30, -1, 10**6, 3, 3, 4, 0]]
    )
    assert spelled(CHARACTERS.spell(ids)) == ["ab c", "", "z???  a"]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("letters", [1, 5])
def test_pieces_are_the_best_segmentation(letters, ties):
    pieces = small_pieces(ties)
    symbols = vocabulary.from_pieces(pieces, PAD, END)
    drawn = jnp.concatenate([draw(1, 150, 5, letters, alphabet=4), draw(2, 50, 5, letters)])
    ids = jax.jit(symbols.encode)(drawn)
    assert ids.shape == (200, symbols.length(5, letters))
    expected = [
        row_of(best_segmentation(pieces, text), symbols, ids.shape[1]) for text in texts(drawn)
    ]
    np.testing.assert_array_equal(ids, expected)
    assert letters == 1 or len({row.index(END) for row in expected}) > 5  # texts of many lengths


def test_no_segmentation_is_better():
    """All 2^4 segmentations of every word, tried one by one."""
    pieces = small_pieces()
    scores = {p.text: p.score for p in pieces if p.type == 1}
    cuts = [
        cut for n in range(LETTERS + 1) for cut in itertools.combinations(range(1, LETTERS + 1), n)
    ]
    drawn = draw(3, 100, alphabet=4)
    for text, ids in zip(texts(drawn), ENCODE(drawn).tolist(), strict=True):
        best = 0
        for word in text.split():
            ways = [
                [(MARK + word)[a:b] for a, b in itertools.pairwise([0, *cut, LETTERS + 1])]
                for cut in cuts
            ]
            best += max(
                sum(scores[piece] for piece in way)
                for way in ways
                if all(piece in scores for piece in way)
            )
        found = [pieces[i] for i in ids[: ids.index(END)]]
        assert "".join(p.text for p in found) == MARK + text.replace(" ", MARK)
        assert sum(p.score for p in found) == pytest.approx(best, abs=1e-4)


def test_the_longest_text_fills_its_row():
    # a letter of no longer piece
    letters = jnp.full((100, WORDS, LETTERS), string.ascii_lowercase.index("q"))
    ids = ENCODE(letters)[0].tolist()
    assert len(ids) == SMALL.length(WORDS, LETTERS)
    assert ids[-1] == END
    assert PAD not in ids


def test_pieces_spell_what_was_encoded():
    letters = jnp.concatenate([draw(4, 50, alphabet=4), draw(5, 50)])
    assert spelled(SMALL.spell(ENCODE(letters))) == [" " + text for text in texts(letters)]


def test_pieces_spell_any_ids():
    pieces, symbols = small_pieces(), SMALL
    number = {p.text: i for i, p in enumerate(pieces)}
    a, mark, odd, accent, extra = (
        number[t] for t in ("a", MARK, "aXb", "\u00e9", f"{MARK}<extra>")
    )
    rows = [
        [a, PAD, mark, a, END, a],
        [odd, number["<0x0A>"], mark, accent, PAD, a],
        [a, 2, a, len(pieces), -1, extra],
    ]
    expected = ["a a", "a?b? ?a", "a ? a ?  ?  ?extra?"]
    assert spelled(symbols.spell(jnp.array(rows))) == expected
    assert (symbols.size, symbols.pad, symbols.end, symbols.start) == (len(pieces), PAD, END, PAD)


@pytest.mark.parametrize("symbols", [CHARACTERS, SMALL], ids=["characters", "pieces"])
def test_lanes_and_chunks_are_alike(symbols):
    letters = draw(6, 100, alphabet=4)
    ids = ENCODE(letters) if symbols is SMALL else symbols.encode(letters)

    def there_and_back(letters):
        ids = symbols.encode(letters)
        return ids, symbols.spell(ids)

    lanes = jax.jit(jax.vmap(there_and_back))(letters.reshape(4, 25, WORDS, LETTERS))
    np.testing.assert_array_equal(lanes[0].reshape(100, -1), ids)
    np.testing.assert_array_equal(lanes[1].reshape(100, -1), symbols.spell(ids))


def test_a_model_file_is_read(tmp_path):
    pieces = small_pieces()
    model = sentencepieces.read(model_file(tmp_path / "small.model", pieces))
    assert list(model.pieces) == pieces
    assert (model.pad, model.end) == (PAD, END)
    symbols = vocabulary.sentencepieces(tmp_path / "small.model")
    assert (symbols.size, symbols.pad, symbols.end, symbols.start) == (len(pieces), PAD, END, PAD)
    assert spelled(symbols.spell(jnp.array([[len(pieces) - 1, END]]))) == [
        pieces[-1].text.replace(MARK, " ")
    ]


def test_other_names_of_padding_and_end(tmp_path):
    pieces = [Piece("[P]", 0, CONTROL), Piece("[E]", 0, CONTROL), *small_pieces()]
    model = sentencepieces.read(
        model_file(tmp_path / "m", pieces, trainer=[(48, "[P]"), (47, "[E]")])
    )
    assert (model.pad, model.end) == (0, 1)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(
        DataError,
        match=r"none\.model cannot be read \(No such file or directory\): expected a file",
    ):
        vocabulary.sentencepieces(tmp_path / "none.model")
    good = model_file(tmp_path / "good", small_pieces()).read_bytes()
    for content in (
        b"not a model, just text.\n" * 40,
        good[:-1],
        good[:1000],
        b"\x80",
        b"\xff" * 99,
        b"\x0a\x02\x0a\x01",
        b"",
    ):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(
            DataError,
            match=r"bad is not a SentencePiece model: .* bytes.*, expected a file that Sent.*\.$",
        ):
            vocabulary.sentencepieces(tmp_path / "bad")


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        (Piece("", -1), "has no text"),
        (Piece("a", -1), "is 'a' again"),
        (Piece("new", float("nan")), "has the score nan"),
        (Piece("new", float("-inf")), "has the score -inf"),
        (Piece("new", -1, 7), "is of type 7"),
    ],
)
def test_pieces_that_no_model_has_are_damage(tmp_path, extra, fault):
    pieces = [*small_pieces(), extra]
    with pytest.raises(
        DataError,
        match=rf"m is damaged: piece {len(pieces) - 1} of {len(pieces)} {fault}, expected",
    ):
        sentencepieces.read(model_file(tmp_path / "m", pieces))


def test_settings_in_several_parts_are_one(tmp_path):
    """So says the format: of a field given twice the last counts, whichever part it is in."""
    pieces, parts = small_pieces(), [message([(4, 10)]), message([(48, "<pad>"), (3, 1)])]
    content = model_file(tmp_path / "m", pieces, trainer=[(3, 2), (4, 999)]).read_bytes()
    (tmp_path / "m").write_bytes(content + message([(2, part) for part in parts]))
    assert list(sentencepieces.read(tmp_path / "m").pieces) == pieces


def test_fields_of_another_kind_are_no_model(tmp_path):
    """A text in four bytes without its size, a score of eight bytes: to a protocol buffer these are
    other fields.
    """
    content = model_file(tmp_path / "m", small_pieces()).read_bytes()
    for odd in (b"\x0d1234", b"\x11" + bytes(8), b"\x18" + b"\xff" * 9 + b"\x01", b"\x02\x00"):
        (tmp_path / "m").write_bytes(message([(1, odd)]) + content)
        with pytest.raises(DataError, match="m is not a SentencePiece model"):
            sentencepieces.read(tmp_path / "m")


def test_a_path_of_a_model_that_is_no_file(tmp_path, monkeypatch):
    model_file(tmp_path / "m", small_pieces())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(sentencepieces.read("~/m").pieces) == small_pieces()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, reason in {
        ".": "Is a directory",
        "pipe": "Not a regular file",
        "loop": "Too many levels",
    }.items():
        with pytest.raises(
            DataError, match=rf"cannot be read \({reason}.*\): expected a file that"
        ):
            sentencepieces.read(tmp_path / name)


def ends_of_fields(content):
    """Where each field of a message ends, all of which are shorter messages."""
    ends = []
    for _, value in sentencepieces._fields(content, {}):
        size = len(value)
        ends.append((ends or [0])[-1] + 2 + (size > 127) + (size > 16383) + size)
    assert ends[-1] == len(content)
    return ends


def test_a_model_cut_anywhere_is_refused(tmp_path):
    pieces = small_pieces()
    content = model_file(tmp_path / "whole", pieces).read_bytes()
    ends = ends_of_fields(content)
    (tmp_path / "cut").write_bytes(content[: ends[99]])
    with pytest.raises(DataError) as told:
        sentencepieces.read(tmp_path / "cut")
    assert str(told.value) == (
        f"SentencePiece model {tmp_path / 'cut'} is cut short: behind 100 pieces its {ends[99]} "
        "bytes lack settings "
        "of the trainer and the normalizer, expected both the trainer's and the normalizer's."
    )
    for end in sorted({*ends[:-1:5], *ends[-4:-1], *range(0, len(content), 53)}):
        (tmp_path / "cut").write_bytes(content[:end])
        between = "is cut short" if end in ends else "is not a SentencePiece model"
        with pytest.raises(DataError, match=between):
            sentencepieces.read(tmp_path / "cut")


def test_a_model_has_at_least_the_pieces_that_it_was_trained_with(tmp_path):
    pieces = small_pieces()
    # T5's file with its extra ids has pieces that were added
    for trained in (len(pieces), len(pieces) - 100):
        read = sentencepieces.read(model_file(tmp_path / "m", pieces, trainer=[(4, trained)]))
        assert list(read.pieces) == pieces
    model_file(tmp_path / "m", pieces, trainer=[(4, len(pieces) + 1)])
    with pytest.raises(
        DataError,
        match=r"m is cut short: it has 306 pieces, expected at least the 307 that it was trained",
    ):
        sentencepieces.read(tmp_path / "m")


@pytest.mark.oracle
def test_t5_s_model_cut_between_pieces_is_refused(tmp_path):
    if not MODELS:
        pytest.skip("needs a SentencePiece model in $PLASTICITY_DATA_DIR/t5_vocab")
    content = MODELS[0].read_bytes()
    for end in ends_of_fields(content)[:-1][::1000] + ends_of_fields(content)[-3:-1]:
        (tmp_path / "cut").write_bytes(content[:end])
        with pytest.raises(DataError, match="is cut short"):
            sentencepieces.read(tmp_path / "cut")


@pytest.mark.parametrize(
    ("trainer", "normalizer", "sentence"),
    [
        ([(3, 2)], [], "is BPE: allowed is unigram"),
        ([(3, 9)], [], "is of type 9: allowed is unigram"),
        ([(24, 1)], [], "does not put ▁ before every word"),
        ([], [(3, 0)], "does not put ▁ before every word"),
        ([], [(5, 0)], "does not put ▁ before every word"),
        ([(48, "<none>")], [], "lacks <none>: a vocabulary needs padding and end"),
    ],
)
def test_other_models_are_refused(tmp_path, trainer, normalizer, sentence):
    with pytest.raises(ValueError, match=sentence):
        vocabulary.sentencepieces(model_file(tmp_path / "m", small_pieces(), trainer, normalizer))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda pieces: [p for p in pieces if p.text not in "qz"],
            "it lacks q z, expected ▁ and the letters a to z",
        ),
        (lambda pieces: [p for p in pieces if p.text != MARK], "it lacks ▁, expected"),
        (
            lambda pieces: [*pieces, Piece(f"{MARK}a{MARK}b", -1)],
            "piece '▁a▁b' ends a word, expected ▁ in front only",
        ),
        (lambda pieces: [*pieces, Piece("xyz", -1, USER_DEFINED)], "piece 'xyz' is user-defined"),
    ],
)
def test_vocabularies_that_do_not_fit_are_refused(change, sentence):
    with pytest.raises(ValueError, match=f"vocabulary does not fit: {sentence}"):
        vocabulary.from_pieces(change(small_pieces()), PAD, END)


@pytest.mark.oracle
def test_small_model_equals_the_library(tmp_path):
    pieces = [p for p in small_pieces() if p.type != BYTE]  # the library wants all 256 or none
    path = model_file(tmp_path / "small.model", pieces)
    theirs, ours = library(path), vocabulary.sentencepieces(path)
    letters = jnp.concatenate([draw(8, 300, alphabet=4), draw(9, 50)])
    ids = jax.jit(ours.encode)(letters)
    expected = [row_of(theirs.encode(text), ours, ids.shape[1]) for text in texts(letters)]
    np.testing.assert_array_equal(ids, expected)


@pytest.fixture(scope="module")
def t5():
    """The library's and our reading of T5's own model."""
    if not MODELS:
        pytest.skip("needs a SentencePiece model in $PLASTICITY_DATA_DIR/t5_vocab")
    return library(MODELS[0]), vocabulary.sentencepieces(MODELS[0])


@pytest.mark.oracle
def test_t5_pieces_equal_the_library(t5):
    theirs, _ = t5
    model = sentencepieces.read(MODELS[0])
    assert len(model.pieces) == theirs.get_piece_size()
    assert [p.text for p in model.pieces] == [
        theirs.id_to_piece(i) for i in range(len(model.pieces))
    ]
    assert [p.score for p in model.pieces] == [
        theirs.get_score(i) for i in range(len(model.pieces))
    ]
    assert (model.pad, model.end) == (theirs.pad_id(), theirs.eos_id())


@pytest.mark.oracle
@pytest.mark.parametrize(("rows", "words", "letters"), [(512, 50, 5), (200, 5, 1), (200, 5, 3)])
def test_t5_ids_equal_the_library(t5, rows, words, letters):
    theirs, ours = t5
    drawn = draw(letters, rows, words, letters)
    ids = jax.jit(ours.encode)(drawn)
    expected = [row_of(theirs.encode(text), ours, ids.shape[1]) for text in texts(drawn)]
    np.testing.assert_array_equal(ids, expected)


@pytest.mark.oracle
def test_t5_text_equals_the_library(t5):
    """Every id between two letters, and rows of random ids."""
    theirs, ours = t5
    a = theirs.piece_to_id("a")
    every = [[a, i, a] for i in range(ours.size) if i != ours.end]
    random = np.random.default_rng(0).integers(0, ours.size, (500, 20))
    for rows in (every, random):
        # what follows the end is nothing, while the library goes on
        texts = [
            theirs.decode(list(itertools.takewhile(lambda i: i != ours.end, map(int, row))))
            for row in rows
        ]
        expected = [
            "".join(c if c in string.ascii_lowercase + " " else "?" for c in text) for text in texts
        ]
        assert [s.split() for s in spelled(ours.spell(jnp.array(rows)))] == [
            s.split() for s in expected
        ]

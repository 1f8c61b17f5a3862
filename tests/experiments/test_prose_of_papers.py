"""Numbers in the sentences of the papers' accounts are those of the committed tables."""

import pytest

from experiments import choosing, prose
from experiments.barriers import claims
from experiments.barriers import prose as barriers
from experiments.disentangling import prose as disentangling
from experiments.disentangling import redrawn
from experiments.prose import Sentence, Told

PAPERS = {
    "barriers": (claims.README, barriers.SENTENCES),
    "disentangling": (redrawn.README, disentangling.SENTENCES),
    "choosing": (choosing.PAGE, choosing.SENTENCES),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_sentences_say_what_the_tables_say(paper):
    readme, sentences = PAPERS[paper]
    assert prose.lacking(readme.read_text(encoding="utf-8"), sentences) == []


@pytest.mark.parametrize("paper", PAPERS)
def test_every_interval_is_of_a_checked_sentence_or_of_a_written_table(paper):
    readme, sentences = PAPERS[paper]
    text = readme.read_text(encoding="utf-8")
    if paper == "choosing":  # (what is above is written by `make claims`)
        text = text.partition(choosing.BEGIN)[2]
    assert text
    assert prose.unchecked(text, sentences) == []


def test_a_number_that_differs_from_its_table_is_told():
    sentence = Sentence("it ends at {end:.1%},", lambda: {"end": Told(0.2079, 0.1427, 0.273)})
    text = "Here it ends\nat 20.8 % [14.3, 27.3], below 30 % [20, 40].\n"
    assert prose.lacking(text, [sentence]) == []
    assert prose.unchecked(text, [sentence]) == ["30 % [20, 40]"]
    wrong = text.replace("20.8", "20.9")
    assert prose.lacking(wrong, [sentence]) == ["it ends at 20.8 % [14.3, 27.3],"]
    assert prose.unchecked(wrong, [sentence]) == ["20.9 % [14.3, 27.3]", "30 % [20, 40]"]
    assert prose.unchecked(f"<!-- arms: x -->\n\n{text}\n<!-- end -->\n", [sentence]) == []


def test_how_a_mean_is_written():
    one = Told(0.2079, -0.1427, 0.273)
    assert f"{one:.2}" == "0.21 [-0.14, 0.27]"
    assert f"{one:+.1p}" == "+20.8 [-14.3, +27.3]"
    assert f"{one:.1%m}" == "20.8 %"
    assert f"{one:.2z}" == ".21 [-.14, .27]"
    with pytest.raises(ValueError, match=r"'.2f' is no format of a Told: allowed are such as .1"):
        f"{one:.2f}"
    assert [prose.short(value) for value in (0.9986, 0.004, 0.504, -0.804)] == [
        "1",
        "0",
        ".50",
        "-.80",
    ]

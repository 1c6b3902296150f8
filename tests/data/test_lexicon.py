import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from univert.data.lexicon import Lexicon, colour_of, normalise, words_of

TEXTS = [
    ("Armchair", "en"), ("Bookcase", "en"), ("Washing machine", "en"), ("Knife", "en"), ("Étagère murale", "fr"),
    ("Fauteuil", "fr"), ("本棚", "ja"), ("ソファ", "ja"), ("box", None),
]  # fmt: skip
LEXICON = Lexicon(TEXTS, brands=["kator-legaz", "scopia"])
LONG_WORDS = sorted({word for text, _ in TEXTS for word in words_of(normalise(text)) if len(word) >= 7})


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ARMCHAIRS", ("armchair",)),
        ("knives", ("knife",)),
        ("boxes", ("box",)),
        ("etagere  Murale!", ("etagere", "murale")),
        ("本棚", ("本棚",)),
        ("白い本棚", ("い本", "本棚")),
        ("bookcsae", ("bookcase",)),
        ("choice", ("choice",)),
        ("", ()),
        ("¿?", ()),
    ],
)
def test_words_are_read_as_the_catalogue_writes_them(query: str, words: tuple[str, ...]) -> None:
    assert LEXICON.read(query).words == words


@settings(max_examples=60, deadline=None)
@given(
    word=st.sampled_from(LONG_WORDS),
    place=st.integers(1, 30),
    letter=st.sampled_from("aeiorst"),
    kind=st.integers(0, 3),
)
def test_one_slip_in_a_long_word_is_forgiven(word: str, place: int, letter: str, kind: int) -> None:
    at = 1 + place % (len(word) - 2)
    typed = (
        word[:at] + word[at + 1 :],
        word[:at] + letter + word[at:],
        word[:at] + letter + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    )[kind]
    if not LEXICON.is_strange(typed):
        assert LEXICON.read(typed).words == (word,)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=40))
@example(text="ℇ")
def test_any_text_is_read_and_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    reading = LEXICON.read(text)
    assert all(0 <= share <= 1 for share in (reading.known, reading.english))
    assert LEXICON.read(text) == reading


def test_the_order_of_words_changes_nothing_but_their_order() -> None:
    readings = [LEXICON.read(" ".join(order)) for order in itertools.permutations(["red", "washing", "machine"])]
    assert {frozenset(reading.words) for reading in readings} == {frozenset({"washing", "machine"})}
    assert {(reading.colour, reading.language, reading.known) for reading in readings} == {("red", "en", 1.0)}


@pytest.mark.parametrize(
    ("word", "colour"),
    [
        ("white", "white"), ("weißes", "white"), ("Blanche", "white"), ("rojas", "red"), ("чёрный", "black"),
        ("赤い", "red"), ("redwood", None), ("chair", None), ("grün", "green"), ("navy", "blue"),
    ],
)  # fmt: skip
def test_colours_in_many_languages(word: str, colour: str | None) -> None:
    assert colour_of(normalise(word)) == colour


def test_a_colour_without_another_word_is_what_a_product_is_called() -> None:
    lexicon = Lexicon([("Orange juice", "en"), ("Red chair", "en")])
    found = [lexicon.read(query)[:1] + lexicon.read(query)[2:4] for query in ("oranges", "orange chair", "blue")]
    assert found == [(("orange",), None, "orange"), (("chair",), None, "orange"), ((), None, "blue")]


def test_brand_colour_and_language_are_told_apart() -> None:
    reading = LEXICON.read("fauteuil rouge Kator Legaz")
    assert (reading.brand, reading.colour, reading.language, reading.words) == (
        "kator-legaz", "red", "fr", ("fauteuil",)
    )  # fmt: skip
    assert LEXICON.read("box").language is None


def test_a_word_that_only_names_in_other_languages_have_is_not_english() -> None:
    lexicon = Lexicon([("Chair", "en"), ("Table basse", "fr"), ("Lamp", None)])
    shares = [lexicon.read(query).english for query in ("chair", "window", "lamp", "table", "table window", "basse")]
    assert shares == [1, 1, 1, 0, 0.5, 0]

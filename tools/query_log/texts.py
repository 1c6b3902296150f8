"""What people type: names of products as they are searched for, and queries about everything else."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from query_log.held_out import fraction, model_of
from univert.data.names import ProductName

OFF_TOPIC_SHARE = 1 / 3
ENGLISH_SHARE = 0.5
TYPO, PLURAL, ORDER, COLOUR, BRAND, ROOM, TAG, SHOPPING = 0.15, 0.08, 0.08, 0.2, 0.08, 0.08, 0.08, 0.12
"""Shares of the on-topic queries that have each."""
HARD_SHARE = 0.1
"""Share of the off-topic queries in which a product's word means something else."""

BRANDS = {
    "scopia": "Scopia", "katorlegaz": "Kator Legaz", "blendswap-cc-0": "Blend Swap", "blendswap-cc-by": "Blend Swap"
}  # fmt: skip
COLOURS = {
    "en": {"white": "white", "black": "black", "grey": "gray", "red": "red", "mustard": "mustard", "green": "green",
           "teal": "teal", "navy": "navy", "pink": "pink", "oak": "oak", "walnut": "walnut"},
    "de": {"white": "weiß", "black": "schwarz", "grey": "grau", "red": "rot", "green": "grün", "pink": "rosa"},
    "fr": {"white": "blanc", "black": "noir", "grey": "gris", "red": "rouge", "green": "vert", "pink": "rose"},
    "es": {"white": "blanco", "black": "negro", "grey": "gris", "red": "rojo", "green": "verde", "pink": "rosa"},
    "it": {"white": "bianco", "black": "nero", "grey": "grigio", "red": "rosso", "green": "verde", "pink": "rosa"},
    "nl": {"white": "wit", "black": "zwart", "grey": "grijs", "red": "rood", "green": "groen", "pink": "roze"},
    "pl": {"white": "biały", "black": "czarny", "grey": "szary", "red": "czerwony", "green": "zielony"},
    "ru": {"white": "белый", "black": "чёрный", "grey": "серый", "red": "красный", "green": "зелёный"},
    "ja": {"white": "白い", "black": "黒い", "red": "赤い"},
    "zh-CN": {"white": "白色", "black": "黑色", "red": "红色"},
}  # fmt: skip
ROOMS = {
    "en": ("for bedroom", "for living room", "kitchen", "office", "for the garden", "bathroom"),
    "de": ("fürs Schlafzimmer", "Wohnzimmer", "Küche", "Büro", "Garten"),
    "fr": ("pour chambre", "salon", "cuisine", "bureau", "jardin"),
    "es": ("para dormitorio", "salón", "cocina", "oficina", "jardín"),
    "it": ("per camera", "soggiorno", "cucina", "giardino"), "nl": ("slaapkamer", "woonkamer", "keuken", "tuin"),
    "sv": ("sovrum", "vardagsrum", "kök"), "pl": ("do sypialni", "do salonu", "kuchnia"),
    "pt": ("para quarto", "sala", "cozinha"), "ru": ("для спальни", "для кухни"), "tr": ("yatak odas\u0131", "mutfak"),
}  # fmt: skip
SHOPPING_WORDS = {
    "en": ("cheap", "buy", "best", "for sale", "price", "modern", "vintage", "second hand", "small", "large", "uk"),
    "de": ("günstig", "kaufen", "gebraucht", "modern"), "fr": ("pas cher", "acheter", "moderne", "occasion"),
    "es": ("barato", "comprar", "moderno"), "it": ("economico", "usato", "moderno"), "nl": ("goedkoop", "kopen"),
    "pl": ("tanio", "nowoczesny"), "pt": ("barato", "comprar"), "ru": ("купить", "недорого"), "tr": ("ucuz",),
}  # fmt: skip

CITIES = ("oslo", "porto", "chicago", "lyon", "nairobi", "osaka", "leeds", "krakow", "valencia", "perth", "ghent")
OFF_TOPIC = {
    "en": ("flights from {city} to {city2}", "weather in {city} on {day}", "{city} airport parking", "{dish} recipe",
           "{city} marathon {year} results", "{illness} treatment", "is {illness} contagious", "{subject} exam papers",
           "{subject} degree {city}", "visa for {country}", "{country} population {year}", "{language} grammar basics",
           "learn {language} online", "{code} tutorial", "{code} install error", "{animal} lifespan",
           "{city} united score", "{tool} reset password", "{tool} download", "movies in {city} {day}",
           "{year} calendar",
           "{currency} to {currency2}", "{country} election polls", "who is the president of {country}",
           "nurse jobs {city}", "{city} metro map", "how many people live in {city}", "why is my {animal} sick",
           "{singer} tour dates", "{singer} new album", "pension age {country}", "solicitor {city}"),
    "de": ("wetter {city}", "flug nach {city}", "rezept {dish}", "{subject} studium", "einwohner {country}"),
    "fr": ("météo {city}", "vol {city} {city2}", "recette {dish}", "cours de {subject}", "actualités {country}"),
    "es": ("tiempo en {city}", "vuelos a {city}", "receta de {dish}", "noticias {country}"),
    "it": ("meteo {city}", "voli per {city}", "ricetta {dish}", "notizie {country}"),
    "pl": ("pogoda {city}", "loty do {city}", "przepis na {dish}"), "ru": ("погода сегодня", "новости дня"),
    "ja": ("{city} 天気", "航空券 {city}", "ニュース 速報"), "zh-CN": ("{city} 天气", "机票 {city}", "新闻 头条"),
}  # fmt: skip
HARD = (
    "{city} league table", "chair of {subject} {city}", "bed occupancy rate {country}",
    "window seat on flight to {city}",
    "ring theory {subject}", "glass transition temperature", "{city} plate number lookup", "power plant {country}",
    "bank branch {city}", "light rail {city}", "{singer} box set release", "{animal} fork tailed",
    "rug pull crypto {year}",
    "desk officer {country} embassy", "{city} book fair {year}", "train delays {city}", "bus strike {day}",
)  # fmt: skip
FILL = {
    "city": CITIES, "city2": CITIES, "day": ("monday", "friday", "sunday"), "year": ("2019", "2023", "2026"),
    "dish": ("lasagne", "goulash", "paella", "ramen", "risotto", "pierogi", "falafel"),
    "illness": ("measles", "asthma", "migraine", "eczema", "bronchitis"),
    "subject": ("chemistry", "law", "economics", "geography", "philosophy", "statistics"),
    "country": ("norway", "brazil", "kenya", "vietnam", "portugal", "canada"),
    "language": ("korean", "arabic", "swahili", "latin"), "code": ("rust", "kotlin", "django", "docker"),
    "animal": ("hamster", "parrot", "rabbit", "gecko"), "tool": ("outlook", "paypal", "skype", "dropbox"),
    "currency": ("yen", "pound", "zloty", "krona"), "currency2": ("dollar", "euro", "franc"),
    "singer": ("adele", "drake", "shakira", "coldplay", "abba"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Typed:
    """One query and its truth; what belongs to no vertical has no product."""

    query: str
    kind: str
    language: str
    product: str | None = None
    name: str | None = None
    colour: str | None = None
    brand: str | None = None


class Typist:
    """Types queries; each follows from the random numbers it is given.

    Args:
        names: every name of every product.
        brands: the brand of each product.
    """

    def __init__(self, names: Iterable[ProductName], brands: Mapping[str, str]) -> None:
        self._names: dict[str, dict[str, ProductName]] = defaultdict(dict)
        for name in names:
            self._names[name.product][name.language or "en"] = name
        self._products = sorted(self._names, key=lambda product: fraction("popular", product))
        self._brands = brands

    def type(self, rng: random.Random) -> Typed:
        """One query."""
        return self._other(rng) if rng.random() < OFF_TOPIC_SHARE else self._named(rng)

    def _other(self, rng: random.Random) -> Typed:
        hard = rng.random() < HARD_SHARE
        language = "en" if hard or rng.random() < ENGLISH_SHARE else rng.choice(list(OFF_TOPIC))
        text = rng.choice(HARD if hard else OFF_TOPIC[language])
        query = text.format(**{key: rng.choice(values) for key, values in FILL.items()})
        return Typed(mistype(query, rng) if rng.random() < TYPO else query, "hard" if hard else "other", language)

    def _named(self, rng: random.Random) -> Typed:
        product = self._products[int(len(self._products) * rng.random() ** 1.6)]
        languages = self._names[product]
        language = "en" if rng.random() < ENGLISH_SHARE else rng.choice(list(languages))
        name = languages[language]
        words, spaced = name.name.split(), language not in ("ja", "zh-CN", "zh-TW")
        if spaced and language == "en" and rng.random() < PLURAL:
            words[-1] = plural(words[-1])
        if len(words) > 1 and rng.random() < ORDER:
            rng.shuffle(words)
        text, colour, brand = " ".join(words), None, None
        model = model_of(product, self._names)
        finish = product.removeprefix(f"{model}-") if model != product else None
        told = COLOURS.get(language, {})
        if told and rng.random() < (3 * COLOUR if finish else COLOUR):
            colour = finish if finish in told else rng.choice(list(told)) if finish is None else None
            if colour:
                text = f"{told[colour]} {text}" if spaced and rng.random() < 0.6 else f"{text} {told[colour]}"
        for share, choices, before in (
            (ROOM, ROOMS.get(language), 0.1), (SHOPPING, SHOPPING_WORDS.get(language), 0.5), (TAG, name.tags, 0.3)
        ):  # fmt: skip
            if choices and rng.random() < share:
                word = rng.choice(choices)
                text = f"{word} {text}" if rng.random() < before else f"{text} {word}"
        if rng.random() < BRAND:
            brand = BRANDS[self._brands[product]]
            text = f"{brand} {text}"
        if spaced and rng.random() < TYPO:
            text = mistype(text, rng)
        text = text.lower() if rng.random() < 0.8 else text
        return Typed(text, "product", language, product, name.name, colour, brand)

    def title(self, product: str, rng: random.Random) -> str | None:
        """What the page that shows a picture of `product` calls it; None where it says nothing."""
        chance = rng.random()
        if chance < 0.25:
            return None if chance < 0.15 else rng.choice(("image", f"IMG_{rng.randrange(10_000):04d}.jpg", "photo 1"))
        languages = self._names[product]
        return languages["en" if chance < 0.7 else rng.choice(list(languages))].name

    def namesakes(self) -> dict[str, list[str]]:
        """For each product all that share its English name, itself among them."""
        by_name: dict[str, list[str]] = defaultdict(list)
        for product in sorted(self._names):
            by_name[self._names[product]["en"].name.lower()].append(product)
        return {product: group for group in by_name.values() for product in group}


def plural(word: str) -> str:
    """An English plural."""
    if word[-1] in "sxz" or word.endswith(("ch", "sh")):
        return f"{word}es"
    return f"{word[:-1]}ies" if word[-1] == "y" and word[-2:-1] not in "aeiou" else f"{word}s"


def mistype(text: str, rng: random.Random) -> str:
    """One slip of the fingers in the longest word: two letters swapped, one lost, doubled, or another."""
    words = text.split()
    place = max(range(len(words)), key=lambda k: len(words[k]))
    word = words[place]
    if len(word) < 4:
        return text
    at = rng.randrange(1, len(word) - 1)
    words[place] = rng.choice(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + rng.choice("aeiourstln") + word[at + 1 :],
        )
    )
    return " ".join(words)


def truth_of(typed: Typed, verticals: Mapping[str, str]) -> dict[str, Any]:
    """The columns of the truth that say what a query means."""
    return {
        "query": typed.query, "kind": typed.kind, "language": typed.language, "product": typed.product,
        "vertical": verticals[typed.product] if typed.product else None, "name": typed.name, "colour": typed.colour,
        "brand": typed.brand,
    }  # fmt: skip

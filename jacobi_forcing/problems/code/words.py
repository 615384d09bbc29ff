"""The vocabulary of the code problems: nouns for arguments, words for test data."""

from random import Random
from typing import NamedTuple


class Noun(NamedTuple):
    """A noun in both numbers, so a list `prices` can be walked as `price`."""

    one: str
    many: str


def plural(one: str) -> str:
    """Return the plural of a regular English noun."""
    if one.endswith("y") and one[-2] not in "aeiou":
        return one[:-1] + "ies"
    if one.endswith(("s", "x", "ch", "sh")):
        return one + "es"
    return one + "s"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _nouns(text: str) -> tuple[Noun, ...]:
    return tuple(Noun(one, plural(one)) for one in _words(text))


#: Things that are whole numbers. None of them is a builtin, a keyword or a result name below.
MEASURES = _nouns(
    "age amount bid bill bonus budget charge click cost debt delay deposit depth distance dose "
    "download fee fine gain gap goal height hour jump lap length level load loss mark mile "
    "minute offer order page penalty point portion price profit pulse rank rate rating reading "
    "rent reward salary sale score shift size speed step stock tax ticket tip toll value visit "
    "volume vote wage weight width"
)

#: Things that are strings and come in lists.
LABELS = _nouns(
    "actor animal artist author bird book brand city color comment country course dish drink "
    "fabric film flower fruit game guest hobby island job keyword lake language member metal "
    "mountain name nickname pet phrase planet plant player product recipe river room singer song "
    "spice sport station street student subject surname tag team tool topic town toy tree user "
    "vegetable village word writer"
)

#: Names for one string argument that holds a text.
TEXTS = _words(
    "banner caption chant comment greeting heading headline label line message motto "
    "note paragraph phrase poem post proverb question quote remark reply rhyme riddle saying"
    " sentence slogan speech statement story summary text title tweet verse"
)

#: Whole numbers that are made of digits, steer a calculation or are sums of money.
CODES = _words("account badge code date locker number pin plate serial stamp ticket year")
ENDS = _words("border end last limit maximum size stop target top upper")
MONEY = _words("amount bill bonus budget cost debt deposit fee fine goal price salary")

#: What can be measured along a scale.
PHYSICAL = _words(
    "angle depth dose duration height length level load pressure pulse rainfall reading signal "
    "speed temperature volume weight width"
)

#: Things with a price, and what the price of one may be called.
GOODS = _nouns(
    "basket book bottle box brush cake candle chair coat cup flower game jacket key lamp mug "
    "pencil plant plate ring rug shirt shoe stool tent ticket tool toy vase"
)
PRICES = _words("amount charge cost fee price rate tariff")

#: Everyday words that fill the test lists and texts.
SAMPLE_WORDS = _words(
    "acorn amber anchor apple arch autumn basil beach berry birch blue bread bridge button cabin "
    "candle cedar cherry cloud clover copper coral cotton dawn desert dune eagle echo ember fern "
    "field finch flint forest fox garden ginger glass grove harbor hazel honey ice iris ivy jade "
    "kite lake lemon lily lime maple meadow melon mint moon moss nest oak ocean olive onyx orange "
    "otter owl pearl pepper pine plum pond poppy quartz rain raven reef river robin rose ruby sage "
    "sand shell silver snow spring star stone storm sun swan tea thyme tiger tulip valley violet "
    "walnut wave willow wind winter wolf wren"
)

#: Short words a function hands back, such as the words of a fizz-buzz or the bands of a score.
SHORT_WORDS = _words(
    "bang beep boom buzz chirp click clap crunch ding drum fizz flash glow honk hum jazz jump "
    "knock meow moo ping plop pop purr quack ring roar rush snap spin splash squeak tick twist"
    " whirl woof zap zip zoom"
)

#: Names a prompt may give to the number or the list that a function works out.
COUNTERS = ("total", "found", "hits", "tally", "matches", "counted", "counter")
SUMS = ("total", "outcome", "summed", "answer", "whole", "combined")
LISTS = ("kept", "listing", "output", "collected", "chosen", "picked", "gathered", "final")


def measure(rng: Random) -> Noun:
    """Pick a noun for whole numbers."""
    return rng.choice(MEASURES)


def label(rng: Random) -> Noun:
    """Pick a noun for strings."""
    return rng.choice(LABELS)


def sample_words(rng: Random, count: int) -> list[str]:
    """Pick that many different everyday words."""
    return rng.sample(SAMPLE_WORDS, count)


def numbers(rng: Random, count: int, low: int = 0, high: int = 60) -> list[int]:
    """Pick that many whole numbers between two bounds, both included."""
    return [rng.randint(low, high) for _ in range(count)]

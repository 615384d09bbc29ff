"""Names, things and places, and how they inflect."""

from __future__ import annotations

from dataclasses import dataclass

IRREGULAR = {
    "cactus": "cactuses",
    "foot": "feet",
    "goose": "geese",
    "man": "men",
    "mouse": "mice",
    "person": "people",
    "potato": "potatoes",
    "scarf": "scarves",
    "sheep": "sheep",
    "loaf": "loaves",
    "tomato": "tomatoes",
}
_WORDS = "zero one two three four five six seven eight nine ten eleven twelve"
NUMBER_WORDS = tuple(_WORDS.split())
SHARES = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}


@dataclass(frozen=True)
class Noun:
    """A countable thing in both of its forms."""

    one: str
    many: str

    def __str__(self) -> str:
        return self.many

    @property
    def a(self) -> str:
        """The singular with its article, as in "an apple"."""
        return f"{'an' if self.one[0] in 'aeiou' else 'a'} {self.one}"


@dataclass(frozen=True)
class Person:
    """Somebody in a story, with the pronouns that go with the name."""

    name: str
    he: str
    him: str
    his: str

    def __str__(self) -> str:
        return self.name


def noun(one: str) -> Noun:
    """Make a noun from its singular; "cup of milk" is inflected at "cup"."""
    head, of, rest = one.partition(" of ")
    before, space, last = head.rpartition(" ")
    return Noun(one, before + space + _plural(last) + of + rest)


def count(number: int, thing: Noun, *, spelled: bool = False) -> str:
    """Say how many there are of a thing, as in "1 egg" or "three eggs"."""
    return f"{say(number, spelled=spelled)} {thing.one if number == 1 else thing.many}"


def say(number: int, *, spelled: bool = False) -> str:
    """Write a number in digits or, if asked and it is at most twelve, as a word."""
    return NUMBER_WORDS[number] if spelled and number < len(NUMBER_WORDS) else str(number)


def _plural(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _nouns(text: str) -> tuple[Noun, ...]:
    return tuple(noun(one.strip()) for one in text.split(","))


def _strings(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _people(names: str, he: str, him: str, his: str) -> tuple[Person, ...]:
    return tuple(Person(name, he, him, his) for name in names.split())


PEOPLE = _people(
    """
    Abigail Ada Aisha Alice Alma Amara Amelia Amina Anna Astrid Beatrix Bella Bianca Carla
    Carmen Celia Clara Chloe Daisy Dana Diana Edith Elena Eliza Ella Elsa Emily Emma Esther Eva
    Farah Fatima Flora Freya Gemma Gina Grace Greta Hana Hannah Hazel Heidi Helen Ida Ingrid Irene
    Isabel Ivy Jade Jana Jasmine Julia Kaya Keiko Laila Lara Laura Lea Leila Lena Lily Linda
    Lucia Lucy Luna Maja Maria Marta Maya Mei Mia Mila Mina Molly Nadia Naomi Nina Nora Olga
    Olivia Paula Petra Pia Priya Rita Rosa Ruby Ruth Salma Sara Selma Sofia Stella Tara Tessa Tina
    Uma Vera Willow Yara Yuki Zara Zoe
    """,
    "she",
    "her",
    "her",
) + _people(
    """
    Aaron Adam Ahmed Alan Albert Ali Anton Arthur Axel Ben Bilal Boris Bruno Caleb Carl Carlo
    Cedric Conor Damian Daniel Dario David Diego Dmitri Edgar Edwin Eli Emil Enzo Eric Erik Ethan
    Felipe Finn Frank Fred Gavin George Gustav Hamid Hans Harry Hassan Henry Hugo Ian Igor Isaac
    Ivan Jack Jacob Jamal Jan Jasper Joel John Jonah Jorge Josef Juan Karim Karl Kenji Kevin Kofi
    Leo Liam Logan Luca Malik Marco Mark Martin Mateo Max Milo Nathan Nico Noah Oliver Omar Oscar
    Otto Owen Pablo Paul Pedro Peter Quentin Rafael Ravi Robin Roman Ryan Sam Samir Simon Stefan
    Tariq Theo Tim Tom Umar Victor Viktor Walter Will Yusuf Zane
    """,
    "he",
    "him",
    "his",
)

# What a slot of that name may hold. Nouns belong to what a problem is; plain strings are color.
THEMES: dict[str, tuple[Noun, ...] | tuple[str, ...]] = {
    "animal": _nouns(
        "sheep, goat, hen, duck, cow, pig, pony, goose, rabbit, turkey, horse, donkey"
    ),
    "baking": _nouns(
        "egg, cup of flour, cup of milk, spoon of honey, spoon of butter, lemon, apple, banana, "
        "spoon of sugar, cup of oats, bar of chocolate, cup of raisins, pinch of salt"
    ),
    "book": _nouns(
        "novel, detective story, history book, comic book, travel guide, adventure book, "
        "fantasy novel, science book, biography, ghost story, school reader, mystery"
    ),
    "bun": _nouns(
        "muffin, bagel, croissant, scone, cupcake, pretzel, bun, cookie, doughnut, bread roll, "
        "brownie, waffle, cinnamon roll, tart, almond cake, pancake"
    ),
    "carrier": _nouns(
        "train, bus, coach, ferry, tram, night train, tour bus, steamboat, school bus, airship, "
        "express train, night bus, river boat, local train"
    ),
    "clothing": _nouns(
        "shirt, jacket, scarf, sweater, dress, hat, raincoat, pair of boots, pair of gloves, "
        "skirt, coat, vest, pair of jeans, tie, umbrella"
    ),
    "container": _nouns("box, crate, basket, tin, bag, carton, tray, bucket, case, sack"),
    "craft": _nouns(
        "candle, bracelet, mug, basket, birthday card, paper crane, lantern, bowl, necklace, "
        "wooden spoon, mask, scarf, vase, cushion, bird house, apron"
    ),
    "day": _strings("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "dish": _nouns(
        "vegetable soup, stew, lasagna, vegetable pie, omelette, casserole, hot pot, "
        "onion soup, bean stew, salad, curry, risotto"
    ),
    "flower": _nouns(
        "tulip, rose, daisy, fern, cactus, lily, orchid, sunflower, pansy, violet, iris, begonia, "
        "lavender plant, tomato plant, bean plant, strawberry plant"
    ),
    "fruit": _nouns(
        "apple, pear, peach, plum, orange, lemon, mango, melon, banana, kiwi, apricot, fig, lime, "
        "nectarine, pineapple, coconut"
    ),
    "gadget": _nouns(
        "bicycle, tent, skateboard, guitar, fishing rod, telescope, pair of roller skates, "
        "keyboard, camera, chess set, scooter, sleeping bag, trumpet, desk lamp, radio, drum"
    ),
    "member": _nouns(
        "pupil, scout, student, camper, dancer, player, singer, guest, visitor, swimmer, runner, "
        "volunteer, actor, musician"
    ),
    "pen": _nouns(
        "pencil, notebook, eraser, marker, ruler, glue stick, folder, pen, crayon, paintbrush, "
        "sharpener, sketch pad, envelope, stapler"
    ),
    "relative": _nouns(
        "mother, father, aunt, uncle, coach, teacher, neighbor, godmother, godfather, "
        "stepmother, stepfather"
    ),
    "room": _nouns(
        "kitchen, bedroom, hall, classroom, workshop, attic, studio, office, playroom, library, "
        "living room, dining room, cellar, garage"
    ),
    "sticker": _nouns(
        "sticker, stamp, marble, shell, postcard, badge, button, trading card, key ring, pebble, "
        "fossil, bead, magnet, comic, model car, feather"
    ),
    "sweet": _nouns(
        "toffee, gummy bear, caramel, mint, lollipop, jelly bean, chocolate, fruit drop, raisin, "
        "walnut, almond, cherry, strawberry, grape"
    ),
    "town": _strings(
        """
        Oakford Millbrook Ashton Westfield Brighton Harlow Norwood Eastwick Fairview Greendale
        Kingsley Lakewood Maplewood Newbury Redhill Riverton Stonebridge Summerfield Thornton
        Whitby Elmhurst Clayton Dunmore Bayview Foxley Glenwood Hilltop Ironbridge
        """
    ),
    "toy": _nouns(
        "kite, puzzle, toy car, board game, teddy bear, spinning top, rubber duck, skipping rope, "
        "model plane, card game, doll, ball, toy robot, puppet"
    ),
    "vegetable": _nouns(
        "tomato, potato, carrot, onion, mushroom, pepper, leek, radish, zucchini, egg, "
        "turnip, olive, spring onion, eggplant"
    ),
    "vehicle": _nouns(
        "bus, coach, van, truck, minibus, camper van, delivery van, tour bus, mail van, "
        "milk truck, fire engine, school bus, jeep, taxi"
    ),
}

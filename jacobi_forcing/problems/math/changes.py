"""Problems about something that goes up and down, told forwards and backwards."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

TEMPERATURE = tellings("""
In the morning it is {t} degrees in {town}. By noon it gets {a} degrees warmer, then [a storm
  comes|clouds come] and it gets {b} degrees colder. After that the sun adds {c} degrees. How many
  degrees is it now?
> We follow the thermometer through the day, one change of weather after the other.
- By noon the air in {town} has warmed up to {t} + {a} = {one} degrees.
- The bad weather cools it to {one} - {b} = {two} degrees.
- With the sun it ends at {two} + {c} = {end} degrees.
= {end} degrees

{p} watches the water in a kettle. It has {t} degrees at first, rises by {a} degrees, falls by {b}
  degrees [when {p} opens the lid|while the fire is low], and rises by {c} degrees again. What is
  its temperature?
> The kettle gets hot, cools a little, and gets hot again, so there are three changes.
- The first rise brings the water to {t} + {a} = {one} degrees.
- Then it drops, and {p} reads {one} - {b} = {two} degrees.
- Finally the kettle shows {two} + {c} = {end} degrees.
= {end} degrees

How high is {p}'s [balloon|kite|drone] in the end? It flies {t} meters above {town}, climbs {a}
  meters, sinks {b} meters, and then climbs {c} meters once more.
> Height changes three times, and up means plus while down means minus.
- Climbing for the first time, it reaches {t} + {a} = {one} meters.
- It sinks from there to a height of {one} - {b} = {two} meters.
- The second climb takes it up to {two} + {c} = {end} meters above {town}.
= {end} meters

An elevator [in {town}|in a tower] starts on floor {t}. It goes up {a} floors for {p}, down {b}
  floors for {q}, and up {c} floors for {r}. On which floor does it stop?
> We ride along and read the floor whenever the door opens.
- {p} gets out on floor {t} + {a} = {one}.
- For {q} it goes down to {one} - {b} = {two}.
- {r} rides up, and the elevator stops on floor {two} + {c} = {end}.
= {end}

{p}'s score in a [card game|word game] was {t} points. {p.he} won {a} points in round one, lost {b}
  points in round two and won {c} points in round three. What is {p.his} score after these rounds?
> Each of the rounds changes the points, so we keep score one at a time.
- Round one lifts {p}'s score to {t} + {a} = {one}.
- It shrinks to {one} - {b} = {two} in the round that {p.he} lost.
- When the third round is over, {p} has {two} + {c} = {end} points.
= {end} points
""")

RIDERS = tellings("""
{carrier.a} leaves {town} with {n} people on board. At the first stop {a} get off and {b} get on. At
  the second stop {c} more get off. How many people [are on board now|ride on]?
> At each stop we change the number of people in the order in which things happen.
- After {a} people have left, there are {n} - {a} = {one} on board.
- New riders join them, so the {carrier.one} carries {one} + {b} = {two}.
- Past the second stop the number is {two} - {c} = {left}.
= {left} people

How many passengers does the {carrier.one} have in the end? It [starts|sets off] with {n}. In {town}
  {a} of them leave it and {b} others come in. A little later {c} passengers leave too.
> The count goes down, then up, then down, and we write it after each change.
- In {town} the number first falls to {n} - {a} = {one}.
- It rises again when others come in: {one} + {b} = {two}.
- The last change is {two} - {c} = {left} passengers.
= {left} passengers

{p} counts the {animal} on a meadow. At noon there are {n}. Then {a} go into the barn, {b} come up
  from the river, and [at last|by evening] {c} run into the wood. How many does {p} count on the
  meadow now?
> We watch the meadow and change the count whenever something moves.
- The barn takes some of the {animal}, {n} - {a} = {one} stay outside.
- With the ones from the river {p} counts {one} + {b} = {two}.
- Since the wood hides a few, the meadow has {two} - {c} = {left}.
= {left animal}

A library owns {n book}. [On {day}|This week] readers borrow {a} of these, bring {b} others back,
  and borrow {c} more. What is the number of {book} on the shelf?
> Lending makes the shelf emptier and returning makes it fuller.
- Readers first carry {a} away, which leaves {n} - {a} = {one}.
- Then the shelf grows to {one} + {b} = {two} {book}.
- The second lending makes it {two} - {c} = {left} in the library.
= {left book}

In the pot of {p}'s game there are {n sticker}. {p} wins {a} from the pot, {q} pays {b} into it, and
  {r} [happily|finally] wins {c}. How many {sticker} does the pot hold after that?
> Each move in the game changes the pot, so we go through the three players.
- When {p} has won, the pot is down to {n} - {a} = {one}.
- {q} fills it up to {one} + {b} = {two} again.
- {r} takes a share too, and {two} - {c} = {left} remain in the pot.
= {left sticker}
""")

BACKWARDS = tellings("""
{p} does not remember how many {sticker} {p.he} had [this morning|on {day}]. {p.he} gave {a} to {q},
  got {b} from {r}, found {d} more in a drawer, and now has {c}. How many were there at the start?
> What came in last has to go out first when we turn the story around.
- We go back in time: without the drawer {p} had {c} - {d} = {one}.
- Before {r} gave any, it was {one} - {b} = {two}.
- {q} must return what was given, {two} + {a} = {n} {sticker} at the start.
= {n sticker}

How much money did {p} bring to {town}? There {p.he} spent {a $} on {bun}, was paid {b $} for a job,
  and [luckily|later] won {d $} in a game. At home {p} counts {c $}.
> If everything in {town} is undone from the end, the purse is as it was.
- The game is undone first: {c} - {d} = {one} dollars.
- Without the job, {p} would have {one} - {b} = {two} dollars.
- The {bun} were paid from the purse, so it once held {two} + {a} = {n} dollars.
= {n $}

A baker sells {a bun}, then bakes {b} new ones, and after lunch bakes another {d}. Now {c bun} lie
  [on the counter|in the window]. How many were there before?
> We turn back the clock of the bakery, from the lunch break to the opening.
- Before the last baking we would see {c} - {d} = {one} {bun}.
- Take away the other new ones as well, {one} - {b} = {two}.
- The customers bought some, and {two} + {a} = {n} is the old number.
= {n bun}

In a bus, {a} people get off in {town}. Then {b} get on at the school and {d} get on [at the mill|at
  the church]. The driver counts {c} people. With how many people did the bus come to {town}?
> Let the bus drive backwards, so that people who got on now get off.
- At its last stop the bus still had {c} - {d} = {one} people.
- Coming to the school, it carried {one} - {b} = {two}.
- Those who left in {town} belong to it too: {two} + {a} = {n}.
= {n} people

Somebody asks {p} for a secret number. {p} [smiles and |]says: take {a} away, add {b}, add {d}, and
  you get {c}. What is the secret number?
> A number that was changed step after step is found by changing it back.
- We do everything in reverse, beginning with {c} - {d} = {one}.
- The other number that was added is removed too: {one} - {b} = {two}.
- Finally we put back what {p} took away, {two} + {a} = {n}.
= {n}
""")


def temperature(rng: Random) -> Problem:
    """Up, down and up again."""
    t, a, c = rng.randint(8, 40), rng.randint(2, 20), rng.randint(2, 20)
    one = t + a
    b = rng.randint(2, min(20, one - 2))
    two = one - b
    return tell(
        rng, "temperature", TEMPERATURE, two + c,
        t=t, a=a, b=b, c=c, one=one, two=two, end=two + c,
    )  # fmt: skip


def riders(rng: Random) -> Problem:
    """Some leave, some join, some leave."""
    n, b = rng.randint(15, 90), rng.randint(2, 30)
    a = rng.randint(2, min(30, n - 4))
    one = n - a
    two = one + b
    c = rng.randint(2, min(30, two - 2))
    return tell(
        rng, "riders", RIDERS, two - c,
        n=n, a=a, b=b, c=c, one=one, two=two, left=two - c,
    )  # fmt: skip


def backwards(rng: Random) -> Problem:
    """Only the end is known, and the start is asked for."""
    a, b, d = rng.randint(3, 30), rng.randint(2, 25), rng.randint(2, 20)
    two = rng.randint(4, 60)
    one, n = two + b, two + a
    return tell(
        rng, "backwards", BACKWARDS, n,
        a=a, b=b, d=d, c=one + d, one=one, two=two, n=n,
    )  # fmt: skip


STRUCTURES = {
    "temperature": temperature,
    "riders": riders,
    "backwards": backwards,
}

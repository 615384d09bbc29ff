"""Problems about school, clubs, collections, and thinking backwards."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

TIMES_AS_MANY = tellings("""
{p} has {a sticker}, and {q} has {k times} as many. {q} gives {g} of them to {r}, [who has none|who
  is ill]. How many {sticker} do {p} and {q} have together now?
- At first {q} has {k} x {a} = {big} {sticker}.
- When {r} has received some, {q} is left with {big} - {g} = {rest}.
- Adding those of {p} gives {rest} + {a} = {total}.
= {total sticker}

A small tree bears {a fruit}. The large tree beside it bears {k times} as many, but {g} of these
  [fall down|are eaten by birds]. {p} picks all others from both trees. How many {fruit} does {p}
  pick?
- On the large tree grow {a} x {k} = {big} {fruit}.
- There {p} can pick only {big} - {g} = {rest}.
- The small tree fills up the basket of {p}: {rest} + {a} = {total}.
= {total fruit}

How many {animal} are there on the two farms? {p} owns {a animal} [near {town}|on a hill]. {q} had
  {k times} as many as {p}, but sold {g} of them.
- Before the sale {q} kept {a} x {k} = {big} {animal}.
- {q}'s farm has {big} - {g} = {rest} of them today.
- With the farm of {p} we count {a} + {rest} = {total}.
= {total animal}

In the first hour {p} writes {a} lines of a story. In the second hour {p.he} writes {k times} as
  many, and then [in a bad mood|after some thought] strikes out {g} of these. How many lines does
  the story have?
- The second hour is quicker: {k} x {a} = {big} lines.
- Some of them do not stay, so it is worth {big} - {g} = {rest}.
- The story of {p} now has {a} + {rest} = {total} lines.
= {total} lines

On {day} {a member} came to a [festival|meeting] in {town}. The day after, {k times} as many came in
  the morning, but {g} went home at once. How many stayed on the two days together, if everyone
  stayed on {day}?
- The second morning saw {k} x {a} = {big} {member}.
- Of those who came then, {big} - {g} = {rest} stayed.
- {day} and the day after have {a} + {rest} = {total} in all.
= {total member}
""")

BACKWARDS = tellings("""
{p} does not remember how many {sticker} {p.he} had [this morning|on {day}]. {p.he} gave {a} to {q},
  got {b} from {r}, found {d} more in a drawer, and now has {c}. How many were there at the start?
- We go back in time: without the drawer {p} had {c} - {d} = {one}.
- Before {r} gave any, it was {one} - {b} = {two}.
- {q} must return what was given, {two} + {a} = {n} {sticker} at the start.
= {n sticker}

How much money did {p} bring to {town}? There {p.he} spent {a $} on {bun}, was paid {b $} for a job,
  and [luckily|later] won {d $} in a game. At home {p} counts {c $}.
- The game is undone first: {c} - {d} = {one} dollars.
- Without the job, {p} would have {one} - {b} = {two} dollars.
- The {bun} were paid from the purse, so it once held {two} + {a} = {n} dollars.
= {n $}

A baker sells {a bun}, then bakes {b} new ones, and after lunch bakes another {d}. Now {c bun} lie
  [on the counter|in the window]. How many were there before?
- Before the last baking we would see {c} - {d} = {one} {bun}.
- Take away the other new ones as well, {one} - {b} = {two}.
- The customers bought some, and {two} + {a} = {n} is the old number.
= {n bun}

In a bus, {a} people get off in {town}. Then {b} get on at the school and {d} get on [at the mill|at
  the church]. The driver counts {c} people. With how many people did the bus come to {town}?
- At its last stop the bus still had {c} - {d} = {one} people.
- Coming to the school, it carried {one} - {b} = {two}.
- Those who left in {town} belong to it too: {two} + {a} = {n}.
= {n} people

Somebody asks {p} for a secret number. {p} [smiles and |]says: take {a} away, add {b}, add {d}, and
  you get {c}. What is the secret number?
- We do everything in reverse, beginning with {c} - {d} = {one}.
- The other number that was added is removed too: {one} - {b} = {two}.
- Finally we put back what {p} took away, {two} + {a} = {n}.
= {n}
""")

PACKS = tellings("""
{p} buys {k} equal packs of {sweet} and finds {b} loose ones [in a drawer|in a pocket]. Now {p.he}
  has {c sweet}. {q} buys one such pack and has {d} loose ones. How many does {q} have?
- The packs of {p} contain {c} - {b} = {all} {sweet}.
- In a single pack there are {all} / {k} = {n}.
- So {q} comes to {n} + {d} = {total}.
= {total sweet}

In {k} rows of a field grow the same number of {flower}, and {b} more grow at the fence. In all {p}
  counts {c}. [Next year|Soon] one row gets {d} new ones. How many {flower} will be in that row?
- Away from the fence {p} has {c} - {b} = {all} {flower}.
- Each of the rows takes {all} / {k} = {n} of them.
- The row that gets new ones will have {n} + {d} = {total}.
= {total flower}

How much does {q} pay? {k} equal tickets and a drink for {b $} cost {p} {c $} [at the cinema|at the
  fair]. {q} takes one ticket and a snack for {d $}.
- Only for the tickets, {p} pays {c} - {b} = {all} dollars.
- One ticket is sold at {all} / {k} = {n} dollars.
- With the snack {q} pays {n} + {d} = {total} dollars.
= {total $}

{p} thinks of a number. [Quickly|In {p.his} head] {p.he} multiplies it by {k}, adds {b}, and gets
  {c}. {q} takes the number that {p} thought of and adds {d}. What does {q} get?
- Undo the adding of {p}: {c} - {b} = {all}.
- Undo the multiplying as well, {all} / {k} = {n} is the number in mind.
- {q} goes on from there to {n} + {d} = {total}.
= {total}

A {container.one} with {k} equal {toy} in it weighs {c} ounces. When empty, it weighs {b} ounces.
  [For the post|On a scale], {p} wraps one {toy.one} in paper of {d} ounces. What is the weight of
  this parcel in ounces?
- By themselves the {toy} weigh {c} - {b} = {all} ounces.
- A single one has a weight of {all} / {k} = {n} ounces.
- {p}'s parcel with the paper weighs {n} + {d} = {total} ounces.
= {total ounce}
""")

SEATS = tellings("""
A hall [in {town}|of the school] has {r} rows of {s} chairs. {a} girls and {b} boys take a seat. How
  many chairs stay empty?
- The hall offers {r} x {s} = {all} chairs.
- On them sit {a} + {b} = {taken} children.
- This leaves {all} - {taken} = {left} chairs empty.
= {left chair}

{p} has filled {r} album pages with {s sticker} each. {p.he} takes out {a} of them for {q} and {b}
  for a cousin. How many {sticker} [are still|remain] in the album?
- The filled pages hold {r} x {s} = {all} {sticker}.
- {p} gives away {a} + {b} = {taken} altogether.
- What remains between the covers is {all} - {taken} = {left}.
= {left sticker}

How many {flower} are still in the ground? In a nursery, {p} planted {r} beds with {s flower} in
  each bed. [Then|On {day}] {a} were sold, and {b} died in the frost.
- Planting {r} beds took {r} x {s} = {all} {flower}.
- Sold or dead are {a} + {b} = {taken} of them.
- The beds of {p} still have {all} - {taken} = {left}.
= {left flower}

{p} carries {r} trays of {s bun} to a party [of the club|in {town}]. The children eat {a} and the
  grown-ups eat {b}. How many {bun} can {p} take home?
- To the party come {s} x {r} = {all} {bun}.
- Children and grown-ups eat {a} + {b} = {taken}.
- {p} goes home with {all} - {taken} = {left} on the trays.
= {left bun}

A store receives {r container} with {s toy} in each. It puts {a} in the window and gives {b} to a
  [hospital|school|kindergarten]. Work out how many {toy} are left to sell.
- Unpacking all of it, we find {r} x {s} = {all} {toy}.
- Window and present use up {a} + {b} = {taken}.
- So the store can sell {all} - {taken} = {left} pieces.
= {left toy}
""")

TEAMS = tellings("""
{a} girls and {b} boys come to a sports day. They form teams of {k}, and each team gets {c} balls
  [to play with|and a flag]. How many balls are handed out?
- Girls and boys together are {a} + {b} = {all} children.
- That makes {all} / {k} = {t} teams on the field.
- For every team to play we need {t} x {c} = {total} balls.
= {total ball}

How many cans of paint does the school need? There are {a} old and {b} new chairs [in the hall|in
  the cellar]. Groups of {k} chairs stand in one room, and each room gets {c} cans.
- Old and new chairs add up to {a} + {b} = {all}.
- They stand in {all} / {k} = {t} rooms.
- With {c} for each room, the school needs {t} x {c} = {total} cans.
= {total can}

{p} picks {a flower} and {q} picks {b}. They tie bunches of {k} and sell a bunch for {c $} at the
  market [in {town}|by the bridge]. How many dollars do they earn?
- {p} and {q} have {a} + {b} = {all} {flower} to tie.
- It is enough for {all} / {k} = {t} bunches.
- Selling all of them earns {t} x {c} = {total} dollars.
= {total $}

A hotel expects {a member} [today|on {day}] and {b} more tomorrow, and all stay for a week. {k}
  sleep in one room. In each room {p} puts {c} towels. What number of towels is that?
- When everybody is there, the hotel has {a} + {b} = {all} {member}.
- They fill {all} / {k} = {t} of its rooms.
- {p} carries {t} x {c} = {total} towels up the stairs.
= {total towel}

{p} brings {a bun} and {q} brings {b} for the [bake|charity|club] sale. They fill bags with {k bun}
  each and ask for {c $} a bag. When all the bags are sold, how much money is there?
- For the sale the two have {a} + {b} = {all} {bun}.
- These go into {all} / {k} = {t} bags.
- Each bag is worth {c} dollars, so {t} x {c} = {total} dollars come in.
= {total $}
""")

PRACTICE = tellings("""
{p} practices the [flute|drums|cello] for {m} minutes on each of {d} school days and for {w} minutes
  on both Saturday and Sunday. How many minutes does {p} practice?
- School days bring {m} x {d} = {work} minutes of music.
- At the weekend {p} plays 2 x {w} = {free} minutes.
- All of this together is {work} + {free} = {total} minutes.
= {total minute}

How many {craft} do {p} and {q} make? {p} works for {d day} and makes {m} each day. {q} [only
  helps|helps] on two days and makes {w} each time.
- {p} finishes {d} x {m} = {work} {craft}.
- {q} adds {w} x 2 = {free} on the days of helping.
- The two friends can show {work} + {free} = {total}.
= {total craft}

The horse of {p} eats {m} carrots a day. {p} feeds it for {d day}. Then {q} [takes over|comes] for
  two days and gives it {w} carrots on each. How many carrots does it eat in this time?
- From {p} the horse gets {m} x {d} = {work} carrots.
- {q} brings another {w} x 2 = {free}.
- During this time it eats {work} + {free} = {total} carrots.
= {total carrot}

A shop [in {town}|at the corner] sells {m} loaves a day from the first to day {d}, and {w} loaves on
  each of the two days after that. Find the number of loaves sold.
- Up to day {d} it sells {d} x {m} = {work} loaves.
- The two days that follow add 2 x {w} = {free}.
- Over the whole time {work} + {free} = {total} loaves leave the shop.
= {total} loaves

{p} learns {m} new words on every one of {d day}. On the two days before [a test|the holidays]
  {p.he} learns {w} words each. How many words does {p} learn?
- Normal days give {p} {d} x {m} = {work} words.
- Before the big day it is {w} + {w} = {free} more.
- In the end {p} knows {work} + {free} = {total} new words.
= {total word}
""")


def times_as_many(rng: Random) -> Problem:
    """One has several times as many and loses some."""
    a, k = rng.randint(4, 30), rng.randint(2, 5)
    big = k * a
    g = rng.randint(2, min(20, big - 2))
    rest = big - g
    return tell(
        rng, "times_as_many", TIMES_AS_MANY, rest + a,
        a=a, k=k, g=g, big=big, rest=rest, total=rest + a,
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


def packs(rng: Random) -> Problem:
    """The size of one of several equal parts, and something more."""
    n, k, b, d = rng.randint(3, 20), rng.randint(2, 5), rng.randint(2, 19), rng.randint(2, 15)
    return tell(
        rng, "packs", PACKS, n + d,
        k=k, b=b, c=k * n + b, d=d, all=k * n, n=n, total=n + d,
    )  # fmt: skip


def seats(rng: Random) -> Problem:
    """Rows of the same length, of which two parts are taken away."""
    r, s = rng.randint(3, 12), rng.randint(4, 12)
    places = r * s
    a = rng.randint(2, places // 2)
    b = rng.randint(2, places - a - 2)
    return tell(
        rng, "seats", SEATS, places - a - b,
        r=r, s=s, a=a, b=b, all=places, taken=a + b, left=places - a - b,
    )  # fmt: skip


def teams(rng: Random) -> Problem:
    """Two kinds together form groups, and every group gets the same."""
    k, t, c = rng.randint(3, 10), rng.randint(3, 12), rng.randint(2, 12)
    everyone = k * t
    a = rng.randint(everyone // 4 + 1, everyone - everyone // 4 - 1)
    return tell(
        rng, "teams", TEAMS, t * c,
        a=a, b=everyone - a, k=k, c=c, all=everyone, t=t, total=t * c,
    )  # fmt: skip


def practice(rng: Random) -> Problem:
    """The same amount on several days, another amount on two."""
    m, d, w = rng.randint(3, 30), rng.randint(3, 5), rng.randint(3, 24)
    work, free = m * d, 2 * w
    return tell(
        rng, "practice", PRACTICE, work + free,
        m=m, d=d, w=w, work=work, free=free, total=work + free,
    )  # fmt: skip


STRUCTURES = {
    "times_as_many": times_as_many,
    "backwards": backwards,
    "packs": packs,
    "seats": seats,
    "teams": teams,
    "practice": practice,
}

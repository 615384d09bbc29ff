"""Problems about school, clubs and collections."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

TIMES_AS_MANY = tellings("""
{p} has {a sticker}, and {q} has {k times} as many. {q} gives {g} of them to {r}, [who has none|who
  is ill]. How many {sticker} do {p} and {q} have together now?
> {q}'s number has to be found first, before and after the gift.
- At first {q} has {k} x {a} = {big} {sticker}.
- When {r} has received some, {q} is left with {big} - {g} = {rest}.
- Adding those of {p} gives {rest} + {a} = {total}.
= {total sticker}

A small tree bears {a fruit}. The large tree beside it bears {k times} as many, but {g} of these
  [fall down|are eaten by birds]. {p} picks all others from both trees. How many {fruit} does {p}
  pick?
> What can be picked from the large tree is less than what it bore.
- On the large tree grow {a} x {k} = {big} {fruit}.
- There {p} can pick only {big} - {g} = {rest}.
- The small tree fills up {p}'s basket: {rest} + {a} = {total}.
= {total fruit}

How many {animal} are there on the two farms? {p} owns {a animal} [near {town}|on a hill]. {q} had
  {k times} as many as {p}, but sold {g} of them.
> One of the farms changed by selling, so we work out its new size.
- Before the sale {q} kept {a} x {k} = {big} {animal}.
- {q}'s farm has {big} - {g} = {rest} of them today.
- With {p}'s farm we count {a} + {rest} = {total}.
= {total animal}

In the first hour {p} writes {a} lines of a story. In the second hour {p.he} writes {k times} as
  many, and then [in a bad mood|after some thought] strikes out {g} of these. How many lines does
  the story have?
> We go through {p}'s work hour by hour, with the bad lines taken out.
- The second hour is quicker: {k} x {a} = {big} lines.
- Some of them do not stay, so it is worth {big} - {g} = {rest}.
- {p}'s story now has {a} + {rest} = {total} lines.
= {total} lines

On {day} {a member} came to a [festival|meeting] in {town}. The day after, {k times} as many came in
  the morning, but {g} went home at once. How many stayed on the two days together, if everyone
  stayed on {day}?
> On the later day some left again, so the two days are not treated alike.
- The second morning saw {k} x {a} = {big} {member}.
- Of those who came then, {big} - {g} = {rest} stayed.
- {day} and the day after have {a} + {rest} = {total} in all.
= {total member}
""")

PACKS = tellings("""
{p} buys {k} equal packs of {sweet} and finds {b} loose ones [in a drawer|in a pocket]. Now {p.he}
  has {c sweet}. {q} buys one such pack and has {d} loose ones. How many does {q} have?
> A pack is hidden in what {p} has, so we leave the loose ones out and look into it.
- {p}'s packs contain {c} - {b} = {all} {sweet}.
- In a single pack there are {all} / {k} = {n}.
- So {q} comes to {n} + {d} = {total}.
= {total sweet}

In {k} rows of a field grow the same number of {flower}, and {b} more grow at the fence. In all {p}
  counts {c}. [Next year|Soon] one row gets {d} new ones. How many {flower} will be in that row?
> The rows are equal, so it is enough to know a single one.
- Away from the fence {p} has {c} - {b} = {all} {flower}.
- Each of the rows takes {all} / {k} = {n} of them.
- The row that gets new ones will have {n} + {d} = {total}.
= {total flower}

How much does {q} pay? {k} equal tickets and a drink for {b $} cost {p} {c $} [at the cinema|at the
  fair]. {q} takes one ticket and a snack for {d $}.
> Since all tickets cost the same, {p}'s bill tells us the price of one.
- Only for the tickets, {p} pays {c} - {b} = {all} dollars.
- One ticket is sold at {all} / {k} = {n} dollars.
- With the snack {q} pays {n} + {d} = {total} dollars.
= {total $}

{p} thinks of a number. [Quickly|In {p.his} head] {p.he} multiplies it by {k}, adds {b}, and gets
  {c}. {q} takes the number that {p} thought of and adds {d}. What does {q} get?
> The number in {p}'s mind is found by doing the opposite.
- Undo {p}'s adding: {c} - {b} = {all}.
- Undo the multiplying as well, {all} / {k} = {n} is the number in mind.
- {q} goes on from there to {n} + {d} = {total}.
= {total}

A {container.one} with {k} equal {toy} in it weighs {c} ounces. When empty, it weighs {b} ounces.
  [For the post|On a scale], {p} wraps one {toy.one} in paper of {d} ounces. What is the weight of
  this parcel in ounces?
> We need to know how heavy one {toy.one} is, without anything around it.
- By themselves the {toy} weigh {c} - {b} = {all} ounces.
- A single one has a weight of {all} / {k} = {n} ounces.
- {p}'s parcel with the paper weighs {n} + {d} = {total} ounces.
= {total ounce}
""")

SEATS = tellings("""
A hall [in {town}|of the school] has {n} rows of {s} chairs. Then {a} girls and {b} boys take a
  seat. How many chairs stay empty?
> Empty places are those on which no child sits down, so we count the chairs and then the children.
- The hall offers {n} x {s} = {all} chairs.
- On them sit {a} + {b} = {taken} children.
- This leaves {all} - {taken} = {left} chairs empty.
= {left chair}

{p} has filled {n} album pages with {s sticker} each. {p.he} takes out {a} of them for {q} and {b}
  for a cousin. How many {sticker} [are still|remain] in the album?
> We begin with the full album and take out both presents at once.
- The filled pages hold {n} x {s} = {all} {sticker}.
- {p} gives away {a} + {b} = {taken} altogether.
- What remains between the covers is {all} - {taken} = {left}.
= {left sticker}

How many {flower} are still in the ground? In a nursery, {p} planted {n} beds with {s flower} in
  each bed. [Then|On {day}] {a} were sold, and {b} died in the frost.
> The ground held more before, so we subtract what is no longer there.
- Planting {n} beds took {n} x {s} = {all} {flower}.
- Sold or dead are {a} + {b} = {taken} of them.
- {p}'s beds still have {all} - {taken} = {left}.
= {left flower}

{p} carries {n} trays of {s bun} to a party [of the club|in {town}]. The children eat {a} and the
  grown-ups eat {b}. How many {bun} can {p} take home?
> All that is not eaten at the party goes back with {p}.
- To the party come {s} x {n} = {all} {bun}.
- Children and grown-ups eat {a} + {b} = {taken}.
- {p} goes home with {all} - {taken} = {left} on the trays.
= {left bun}

A store receives {n container} with {s toy} in each. It puts {a} in the window and gives {b} to a
  [hospital|school|kindergarten]. Work out how many {toy} are left to sell.
> For selling, the store keeps what it does not show or give away.
- Unpacking all of it, we find {n} x {s} = {all} {toy}.
- Window and present use up {a} + {b} = {taken}.
- So the store can sell {all} - {taken} = {left} pieces.
= {left toy}
""")

TEAMS = tellings("""
[On a sports day|At a school festival], {a} girls and {b} boys form teams of {k}, and each team gets
  {c} balls [to play with|and a flag]. How many balls are handed out?
> To know about the balls, we need the number of teams, and for that all the children.
- Girls and boys together are {a} + {b} = {all} children.
- That makes {all} / {k} = {t} teams on the field.
- For every team to play we need {t} x {c} = {total} balls.
= {total ball}

How many cans of paint does the school need? There are {a} old and {b} new chairs [in the hall|in
  the cellar]. Groups of {k} chairs stand in one room, and each room gets {c} cans.
> Paint is counted by the room, so we find out how many of these there are.
- Old and new chairs add up to {a} + {b} = {all}.
- They stand in {all} / {k} = {t} rooms.
- With {c} for each room, the school needs {t} x {c} = {total} cans.
= {total can}

{p} picks {a flower} and {q} picks {b}. They tie bunches of {k} and sell a bunch for {c $} at the
  market [in {town}|by the bridge]. How many dollars do they earn?
> They are paid by the bunch, which is why we count bunches first.
- {p} and {q} have {a} + {b} = {all} {flower} to tie.
- It is enough for {all} / {k} = {t} bunches.
- Selling all of them earns {t} x {c} = {total} dollars.
= {total $}

A hotel expects {a member} [today|on {day}] and {b} more tomorrow, and all stay for a week. There
  are {k} beds in every room, and {p} puts {c} towels in each room. What number of towels is that?
> The towels belong to the rooms, and the rooms depend on all who come.
- When everybody is there, the hotel has {a} + {b} = {all} {member}.
- They fill {all} / {k} = {t} of its rooms.
- {p} carries {t} x {c} = {total} towels up the stairs.
= {total towel}

{p} brings {a bun} and {q} brings {b} for the [bake|charity|club] sale. They fill bags with {k bun}
  each and ask for {c $} a bag. When all the bags are sold, how much money is there?
> Money comes in for each bag, so it matters how many bags they can fill.
- For the sale the two have {a} + {b} = {all} {bun}.
- These go into {all} / {k} = {t} bags.
- Each bag is worth {c} dollars, so {t} x {c} = {total} dollars come in.
= {total $}
""")

PRACTICE = tellings("""
{p} practices the [flute|drums|cello] for {m} minutes on each of {d} school days and for {w} minutes
  on both Saturday and Sunday. How many minutes does {p} practice?
> School days and the weekend have different plans, so we treat them one by one.
- School days bring {m} x {d} = {work} minutes of music.
- At the weekend {p} plays 2 x {w} = {free} minutes.
- All of this together is {work} + {free} = {total} minutes.
= {total minute}

How many {craft} do {p} and {q} make? {p} works for {d day} and makes {m} each day. {q} [only
  helps|helps] on two days and makes {w} each time.
> The work of both has to be counted, and they do not work at the same speed.
- {p} finishes {d} x {m} = {work} {craft}.
- {q} adds {w} x 2 = {free} on the days of helping.
- The two friends can show {work} + {free} = {total}.
= {total craft}

{p}'s horse eats {m} carrots a day. {p} feeds it for {d day}. Then {q} [takes over|comes] for two
  days and gives it {w} carrots on each. How many carrots does it eat in this time?
> Two people feed the horse, each for a different time.
- From {p} the horse gets {m} x {d} = {work} carrots.
- {q} brings another {w} x 2 = {free}.
- During this time it eats {work} + {free} = {total} carrots.
= {total carrot}

A shop [in {town}|at the corner] sells {m} loaves a day from the first to day {d}, and {w} loaves on
  each of the two days after that. Find the number of loaves sold.
> The sales changed after a while, and so we split the time into two parts.
- Up to day {d} it sells {d} x {m} = {work} loaves.
- The two days that follow add 2 x {w} = {free}.
- Over the whole time {work} + {free} = {total} loaves leave the shop.
= {total} loaves

{p} learns {m} new words on every one of {d day}. On the two days before [a test|the holidays]
  {p.he} learns {w} words each. How many words does {p} learn?
> Learning got quicker or slower before the big day, so there are two sums.
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


def packs(rng: Random) -> Problem:
    """The size of one of several equal parts, and something more."""
    n, k, b, d = rng.randint(3, 20), rng.randint(2, 5), rng.randint(2, 19), rng.randint(2, 15)
    return tell(
        rng, "packs", PACKS, n + d,
        k=k, b=b, c=k * n + b, d=d, all=k * n, n=n, total=n + d,
    )  # fmt: skip


def seats(rng: Random) -> Problem:
    """Rows of the same length, of which two parts are taken away."""
    n, s = rng.randint(3, 12), rng.randint(4, 12)
    places = n * s
    a = rng.randint(2, places // 2)
    b = rng.randint(2, places - a - 2)
    return tell(
        rng, "seats", SEATS, places - a - b,
        n=n, s=s, a=a, b=b, all=places, taken=a + b, left=places - a - b,
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
    "packs": packs,
    "seats": seats,
    "teams": teams,
    "practice": practice,
}

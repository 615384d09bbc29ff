"""Problems about the kitchen, the garden and rooms."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

RECIPE = tellings("""
A recipe for {dish.a} serves {s} people and takes {m vegetable}. {p} cooks for {n} people and has
  only {have} of the {vegetable} [at home|in the kitchen]. How many more does {p} need?
> The amounts in the recipe grow with the number of people at the table.
- {p}'s guests are {n} / {s} = {f} times as many people as in the recipe.
- For all of them {p} cooks with {m} x {f} = {need} {vegetable}.
- As there are some at home, {p.he} lacks {need} - {have} = {buy}.
= {buy vegetable}

How many {vegetable} must {p} buy? {p.he} wants to make {dish.a} for {n} guests. The cookbook says
  {m vegetable} for {s} guests, and {p.his} {relative.one} [kindly |]brings {have}.
> We scale up what the cookbook tells {p} and think of the help afterwards.
- The cookbook amount has to be taken {n} / {s} = {f} times.
- {dish.a} of that size needs {f} x {m} = {need} {vegetable}.
- The {relative.one} helps out, so {p} must buy {need} - {have} = {buy}.
= {buy vegetable}

For {s bun} one needs {m baking}. [On {day}|For the school fair] {p} wants to bake {n bun}. {p.he}
  finds {have} of the {baking} and borrows the others from {q}. How many does {q} lend?
> Since {p} bakes several portions, the amount in the recipe has to be multiplied.
- {p} bakes {n} / {s} = {f} portions of {bun}.
- Each portion takes {m}, so {p} needs {f} x {m} = {need} {baking}.
- {q} lends the missing {need} - {have} = {buy} of them.
= {buy baking}

In the [school|hotel|camp] kitchen, {m vegetable} are enough for {s} plates of food. Today {n}
  plates are ordered. {p} has washed {have} of the {vegetable} already. How many are still to be
  washed?
> More plates mean more to wash, in just the same proportion.
- The order is {n} / {s} = {f} times the usual number of plates.
- It takes {m} x {f} = {need} {vegetable} to fill all the plates.
- {p} still has to wash {need} - {have} = {buy}.
= {buy vegetable}

{p} feeds {s} cats with {m} spoons of food a day. While {q} is [on holiday|in {town}], there are {n}
  cats to feed. By noon {p.he} has given {have} spoons. How many spoons are left to give today?
> Every cat eats the same, so we ask how much bigger the task has become.
- Now {p} has {n} / {s} = {f} times as many cats as usual.
- In a day they eat {m} x {f} = {need} spoons of food.
- After noon the cats should still get {need} - {have} = {buy} spoons.
= {buy} spoons
""")

FENCE = tellings("""
{p} builds a fence around a garden that is {l} meters long and {w} meters wide. [At the front|On one
  side] a gate of {g} meters stays open. How many meters of fence does {p} need?
> The fence follows all four sides, except for the place where one walks in.
- One long and one short side measure {l} + {w} = {half} meters.
- The garden has each of them twice, so 2 x {half} = {around} meters.
- No fence is needed at the gate, and {p} builds {around} - {g} = {total} meters.
= {total} meters

How much ribbon is needed? {p} wants to frame a picture that is {l} cm by {w} cm. {p.he} [still
  has|found] a piece of {g} cm and will use it, so {p.he} buys only the rest.
> A frame has four edges, and the old piece covers some of their length.
- Two neighboring edges of the picture are {l} + {w} = {half} cm.
- All four edges together come to {half} x 2 = {around} cm.
- With the piece at hand, {p} buys {around} - {g} = {total} cm of ribbon.
= {total} cm

{p}'s {room.one} is {l} feet long and {w} feet wide. A wooden strip runs along the bottom of all
  walls, but not across the door, which is {g} feet wide. [Find|Work out] the length of the strip.
> We walk along the walls in our mind and then cut out the door.
- Half of the way around the {room.one} is {l} + {w} = {half} feet.
- The full way around is 2 x {half} = {around} feet.
- {p} leaves out the door: {around} - {g} = {total} feet of wood.
= {total} feet

{p} runs once around a rectangular [field|park|pond] with sides of {l} and {w} meters. When {p.he}
  is {g} meters from the start again, {p.he} stops to greet {q}. How far has {p} run?
> {p} does not quite finish the round, so we shorten a full one.
- Length and width add up to {l} + {w} = {half} meters.
- Once around would be {half} + {half} = {around} meters.
- {p} meets {q} a little earlier, after {around} - {g} = {total} meters.
= {total} meters

Around a rectangular table, {l} dm long and {w} dm wide, {p} sews a border. {q} has [already|by now]
  done {g} dm of it. How many dm are left for {p}?
> The border has four edges, some of which {q} has taken care of.
- A long edge and a short edge need {l} + {w} = {half} dm of border.
- As the table has two of each, this doubles to 2 x {half} = {around} dm.
- The part that {q} did is taken away, {around} - {g} = {total} dm are left.
= {total} dm
""")

FLOOR = tellings("""
{p}'s {room.one} is {l} meters long and {w} meters wide. In the middle lies a carpet of {a} by {b}
  meters. How many square meters of the floor can [still |]be seen?
> The part that we see is the whole floor without the place under the carpet.
- The floor of the {room.one} has {l} x {w} = {area} square meters.
- Under the carpet {a} x {b} = {small} square meters are hidden.
- One can see the other {area} - {small} = {left} square meters.
= {left} square meters

{p} has a garden of {l} by {w} meters. {p.he} digs a pond that is {a} meters long and {b} meters
  wide, and sows grass on [the rest|all the rest]. How large is the lawn in square meters?
> Grass grows wherever the garden is not under water.
- Garden: {l} x {w} = {area} square meters.
- The water of the pond covers {a} x {b} = {small} square meters of it.
- So {p} sows grass on {area} - {small} = {left} square meters.
= {left} square meters

How many tiles does {p} lay? The floor of {room.a} takes {l} rows of {w} tiles. But [a stove|a
  cupboard] stands on {a} rows of {b} tiles, and there {p} lays nothing.
> We pretend that nothing stands on the floor, and correct this afterwards.
- A bare floor would take {l} x {w} = {area} tiles.
- Where it is covered, {p} saves {a} x {b} = {small} of them.
- For this {room.one} {p.he} lays {area} - {small} = {left} tiles.
= {left} tiles

A wall {l} feet long and {w} feet high has a window of {a} by {b} feet. {p} paints the wall
  [green|white|yellow|blue], but of course not the window. How many square feet does {p} paint?
> The painted part is the wall without the glass in it.
- The wall with its window measures {l} x {w} = {area} square feet.
- Glass takes up {a} x {b} = {small} square feet.
- What gets painted is {area} - {small} = {left} square feet.
= {left} square feet

{p} cuts a sheet of paper into {l} rows of {w} squares. {q} [takes|needs] a block of {a} rows with
  {b} squares each. How many squares does {p} keep?
> From all the squares of the sheet we take the block away.
- By cutting the sheet {p} gets {l} x {w} = {area} squares.
- {q}'s block is made of {a} x {b} = {small} of these.
- For {p} that leaves {area} - {small} = {left} squares of paper.
= {left} squares
""")

TANK = tellings("""
A tank for {full} liters contains {have} liters of water. {p} opens two taps [at once|together],
  which give {a} and {b} liters per minute. After how many minutes is the tank full?
> The time depends on the room in the tank and on how fast both taps are.
- Until it is full, {full} - {have} = {gap} liters are missing.
- The two taps together give {a} + {b} = {both} liters per minute.
- {p} must wait {gap} / {both} = {k} minutes for the water to reach the top.
= {k minute}

{p} and {q} have to [wash|peel|cut] {full fruit}. So far, {have} are done. If {p} does {a} a minute
  and {q} does {b}, how many minutes will they need for the others?
> Working together makes it quicker, so we compare their speed with what is left to do.
- The friends still have {full} - {have} = {gap} {fruit} before them.
- Side by side they do {a} + {b} = {both} in a minute.
- So {p} and {q} are finished after {gap} / {both} = {k} minutes.
= {k minute}

How many hours must two machines run? The workshop [in {town}|of {p}] has an order for {full craft},
  and {have} lie in the store. One machine makes {a} an hour, the other makes {b}.
> Some of the order is in the store, and both machines share the rest.
- Not every piece is new: {full} - {have} = {gap} {craft} must be made.
- Each hour the machines finish {a} + {b} = {both} pieces.
- For the order they have to run {gap} / {both} = {k} hours.
= {k hour}

The school choir wants {full} songs in its book. [So far|At the moment] it has {have}. Every week
  {p} writes {a} new songs and {q} writes {b}. How many weeks will it take until the book is full?
> The pages still open are filled by two people at the same time.
- New songs that the choir wants: {full} - {have} = {gap}.
- Per week {p} and {q} write {a} + {b} = {both} of them.
- The book is full after {gap} / {both} = {k} weeks.
= {k week}

{p} and {q} walk toward each other on a path of {full} km. {q} is late, and {p} has a lead of {have}
  km. From then on {p} makes {a} km an hour and {q} makes {b}. In how many hours do they [meet|see
  each other]?
> The gap between them closes from both ends at once.
- Between the two there are {full} - {have} = {gap} km when {q} starts.
- Every hour they come closer by {a} + {b} = {both} km.
- They stand face to face after {gap} / {both} = {k} hours.
= {k hour}
""")


def recipe(rng: Random) -> Problem:
    """A recipe is scaled up, and some of it is there."""
    s, m, f = rng.randint(2, 6), rng.randint(2, 12), rng.randint(2, 5)
    need = m * f
    have = rng.randint(2, min(25, need - 2))
    return tell(
        rng, "recipe", RECIPE, need - have,
        s=s, m=m, n=s * f, have=have, f=f, need=need, buy=need - have,
    )  # fmt: skip


def fence(rng: Random) -> Problem:
    """The way around a rectangle with a gap in it."""
    w, g = rng.randint(4, 40), rng.randint(2, 6)
    side = rng.randint(w + 1, 55)
    half = side + w
    return tell(
        rng, "fence", FENCE, 2 * half - g,
        l=side, w=w, g=g, half=half, around=2 * half, total=2 * half - g,
    )  # fmt: skip


def floor(rng: Random) -> Problem:
    """A small rectangle is taken out of a large one."""
    side, w = rng.randint(4, 12), rng.randint(4, 12)
    a, b = rng.randint(2, side - 1), rng.randint(2, w - 1)
    area, small = side * w, a * b
    return tell(
        rng, "floor", FLOOR, area - small,
        l=side, w=w, a=a, b=b, area=area, small=small, left=area - small,
    )  # fmt: skip


def tank(rng: Random) -> Problem:
    """Two rates together close a gap."""
    a, k, have = rng.randint(2, 6), rng.randint(2, 12), rng.randint(5, 50)
    b = rng.choice([rate for rate in range(2, 7) if rate != a])
    both, gap = a + b, (a + b) * k
    return tell(
        rng, "tank", TANK, k,
        full=gap + have, have=have, a=a, b=b, both=both, gap=gap, k=k,
    )  # fmt: skip


STRUCTURES = {
    "recipe": recipe,
    "fence": fence,
    "floor": floor,
    "tank": tank,
}

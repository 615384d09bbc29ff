"""Problems about ages, scores, and who has how many."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

AGES_LATER = tellings("""
{p} is {a year} old, and {q} is {d year} older. How old will the two be together in {y year}[, when
  they meet again|]?
> We find {q}'s age today, then let the same time pass for both.
- {q} is older, and so {a} + {d} = {b} years of age today.
- In {y} years {p} will have turned {a} + {y} = {one}.
- By then {q} reaches the age of {b} + {y} = {two}.
- Their ages together will be {one} + {two} = {total} years.
= {total year}

[On {p}'s birthday|Today] a tree in the yard is {a year} old. A second tree was planted {d} years
  before it. When {y} more years have passed, what is the sum of the ages of the trees?
> Trees grow old side by side, so the years are added to each of them.
- The second tree has stood for {a} + {d} = {b} years.
- Later the younger tree will be {a} + {y} = {one}.
- The older one grows to {b} + {y} = {two} years in the same time.
- As a sum we get {one} + {two} = {total} years.
= {total year}

What do the ages of {p} and {q} add up to in {y year}? At the moment {q} is {a} years old. {p} is
  [exactly |]{d year} older than {q}.
> To add the ages later, we have to know both of them now.
- Right now {p} has lived for {a} + {d} = {b} years.
- {q}'s age will then be {a} + {y} = {one}.
- For {p} we get {b} + {y} = {two}.
- Adding both ages gives {one} + {two} = {total}.
= {total year}

{p} has kept bees for {a year}. {p.his} {relative.one} began {d} years earlier. If both go on [like
  this|happily], how many years of beekeeping will they have together in {y year}?
> Both keep on for the same time, but one of them has a longer past.
- The {relative.one} has kept bees for {a} + {d} = {b} years.
- After the coming years, {p} can look back on {a} + {y} = {one}.
- It will be {b} + {y} = {two} for the {relative.one}.
- Together they have {one} + {two} = {total} years with their bees.
= {total year}

The youngest player of a team is {a} and the oldest player is {d year} older. In {y year} both
  [still play|are still there]. Find the sum of their ages at that time.
> The gap between the two players never changes, only their ages do.
- At present the oldest player is {a} + {d} = {b}.
- The youngest will be {a} + {y} = {one} years old.
- Time passes for the oldest too, {b} + {y} = {two}.
- So the sum that we look for is {one} + {two} = {total}.
= {total}
""")

AGES_TIMES = tellings("""
{p} is {a} years old. {p.his} {relative.one} is {k times} as old. What will be the sum of their ages
  in {y year}? [Both have birthdays in May.|Nobody else is asked.|Think well.]
> We start with the ages of today and add the time that passes for each person.
- {p}'s {relative.one} is {k} x {a} = {old} years old.
- At present the two of them have {a} + {old} = {now} years.
- As both get older, we add {y} twice, 2 x {y} = {both}.
- In the end the sum is {now} + {both} = {total}.
= {total}

How many years will {p} and {p.his} {relative.one} count together {y year} from now? {p}'s
  {relative.one} is [just|today] {k times} as old as {p}, who is {a}.
> To look ahead, it is best to know how old they are at the moment.
- {p.his} {relative.one} must be {a} x {k} = {old} years of age.
- Counting today, it is {old} + {a} = {now} years for the two.
- Two people who get {y} years older gain 2 x {y} = {both} years.
- That makes a total of {now} + {both} = {total} years.
= {total year}

The old mill [near {town}|on the river] has stood for {k times} as many years as {p}'s workshop,
  which was built {a year} ago. If both stand for another {y year}, how many years will that be in
  all?
> The past is different for the two, but the time to come is the same.
- The mill has stood for {k} x {a} = {old} years.
- Up to now both have {old} + {a} = {now} years behind them.
- Two times {y} years are still to come: 2 x {y} = {both}.
- In all, the two buildings stand for {now} + {both} = {total} years.
= {total year}

{p} has {a} {flower.one} seeds. {q} has {k times} as many. [On {day}|In spring] each of them gets
  {y} seeds more. How many seeds do they have together?
> The gift is the same for both friends, though {q} starts with more.
- {q} starts with {k} x {a} = {old} seeds.
- The seeds of {p} and {q} are {a} + {old} = {now}.
- Both of them get more, that is 2 x {y} = {both} extra.
- For planting {flower} they have {now} + {both} = {total} seeds.
= {total} seeds

A small cart weighs {a} kg, and a large one weighs {k times} as much. {p} loads {y} kg of {fruit} on
  each of them. What do the two weigh [together|on the scales]?
> Both get the same load, but one is heavier to begin with.
- Without its load the large cart weighs {k} x {a} = {old} kg.
- Small and large one make {a} + {old} = {now} kg while empty.
- {p} loads 2 x {y} = {both} kg of {fruit} in all.
- The scales show {now} + {both} = {total} kg.
= {total} kg
""")

AVERAGE = tellings("""
{p} takes three tests and scores {x}, {y} and {z} points. The average of the class is {g} points. By
  how many points is {p}'s average [better|higher] than that of the class?
> To find an average, add up the tests and share the sum evenly among them.
- The first two tests bring {x} + {y} = {two} points.
- With the last one {p} has {two} + {z} = {sum} points.
- On average this is {sum} / 3 = {mean} per test.
- {p} is ahead of the class by {mean} - {g} = {more}.
= {more point}

In three days {p} picks {x}, {y} and {z fruit}. [Last year|Usually] {p.he} picked {g} a day. How
  many more per day is it on average now?
> For a fair comparison we spread the whole harvest over the days.
- Day one and day two give {x} + {y} = {two} {fruit}.
- After the third day there are {two} + {z} = {sum}.
- Spread evenly over the days, {p} picks {sum} / 3 = {mean} a day.
- Compared with before, that is {mean} - {g} = {more} more.
= {more}

By how many {animal} is the average of three farms above {g}? The farms [near {town}|by the lake]
  keep {x}, {y} and {z animal}.
> We imagine that all farms had the same number and compare it with the one given.
- To begin, the first and second farm have {x} + {y} = {two} {animal}.
- The third farm brings the number to {two} + {z} = {sum}.
- Shared out evenly, each farm would keep {sum} / 3 = {mean}.
- This lies {mean} - {g} = {more} above the given number.
= {more}

{p}, {q} and {r} jump rope. {p} manages {x} jumps, {q} manages {y} and {r} manages {z}. [To win a
  prize|For a medal], a team needs an average of {g} jumps. By how many jumps is their average over
  this?
> The team is as good as its average, which we get from all the jumps.
- {p} and {q} jump {x} + {y} = {two} times.
- {r} helps the team to {two} + {z} = {sum} jumps.
- The average of three people is {sum} / 3 = {mean}.
- They are over the needed number by {mean} - {g} = {more}.
= {more jump}

A shop sold {x clothing} in [May|March], {y} in the month after, and {z} in the third month. The
  owner had hoped for {g} a month. How far above this hope is the monthly average?
> We level out the good and the weak months before comparing them.
- Two months together saw {x} + {y} = {two} sales.
- The whole season had {two} + {z} = {sum}.
- A month in the middle of these is worth {sum} / 3 = {mean} {clothing}.
- The hope of the owner is beaten by {mean} - {g} = {more}.
= {more}
""")

NEEDED = tellings("""
{p} wants an average of {m} points in three games. [So far|Up to now] {p.he} has made {x} and {y}
  points. How many points does {p} need in the last game?
> The average tells us how many points {p} must have when all games are over.
- An average of {m} in three games means 3 x {m} = {goal} points.
- The games that are over gave {p} {x} + {y} = {two}.
- In the last one {p.he} needs {goal} - {two} = {need} points.
= {need point}

How many {bun} must {p} bake [on {day}|today]? Over three days {p.he} would like to bake {m} per day
  on average. On the first two days it was {x} and {y}.
> Some days were better than others, but the total of the plan is fixed.
- Baking {m} on each of three days would be {m} x 3 = {goal} {bun}.
- Two days are behind {p}, with {x} + {y} = {two} of them.
- To keep the plan, {p} bakes {goal} - {two} = {need} now.
= {need bun}

Three shelves should hold {m book} each, {p} thinks. But one holds {x} and [another|the next] holds
  {y}. How many {book} must be on the third shelf so that the total is right?
> The total that {p} has in mind shows what the last shelf should hold.
- {p} wants to have 3 x {m} = {goal} {book} on all shelves.
- There are {x} + {y} = {two} on the ones that were counted.
- The third shelf has to carry {goal} - {two} = {need}.
= {need book}

The coach asks for {m} laps per person on average. {p} swims {x} laps and {q} swims {y}. How many
  laps must {r} swim so that the three [reach this|make it]?
> Since the wish of the coach is about the whole team, we begin with all their laps.
- For three swimmers the coach expects 3 x {m} = {goal} laps.
- {p} and {q} have done {x} + {y} = {two} of these.
- So {r} has to swim {goal} - {two} = {need} laps.
= {need lap}

In three weeks {p} hopes to save {m $} a week on average. {p.he} put away {x $} in week one and {y
  $} in week two. What does {p} have to save in week three?
> An average can be turned into a goal for the whole time.
- {p}'s hope is to own {m} x 3 = {goal} dollars after three weeks.
- Put away by now: {x} + {y} = {two} dollars.
- Week three has to bring {goal} - {two} = {need} dollars.
= {need $}
""")

MORE_FEWER = tellings("""
{p} has {a sticker}. {q} has {d} more than {p}, and {r} has {e} fewer than {q}. How many {sticker}
  do the three [friends|children] have in all?
> {p}'s number leads to that of {q}, and this one leads to {r}.
- {q} is ahead of {p} and has {a} + {d} = {b}.
- From this we get the number for {r}, {b} - {e} = {c}.
- {p} and {q} together own {a} + {b} = {two} {sticker}.
- When {r} joins them it is {two} + {c} = {total}.
= {total sticker}

A farmer sells {a animal} in spring, {d} more in summer than in spring, and {e} fewer in autumn than
  in summer. How many are sold [in this year|in the three seasons]?
> Each season is compared with the one before, so we go through the year in order.
- In summer the farmer sells {a} + {d} = {b} {animal}.
- Autumn is weaker with {b} - {e} = {c}.
- Spring and summer make {a} + {b} = {two}.
- Over the three seasons {two} + {c} = {total} are sold.
= {total animal}

How many meters of path are there? The first part [near {town}|in the wood] is {a} meters long. The
  second is {d} meters longer than the first, the third {e} meters shorter than the second.
> We measure one part after the other and join them at the end.
- Second part: {a} + {d} = {b} meters.
- Third part: {b} - {e} = {c} meters, since it is shorter.
- The first and second part reach {a} + {b} = {two} meters.
- To the end of the path we walk {two} + {c} = {total} meters.
= {total} meters

On {day} {p} sold {a} bowls of soup. The next day it was {d} bowls more, and on the third day {e}
  bowls fewer than on the second. [Altogether|In all], how many bowls did {p} sell?
> The soup sold on one day tells us about the next one.
- On the second day {p} sold {a} + {d} = {b} bowls.
- The third day was not as good, only {b} - {e} = {c}.
- Let us add the first two days, {a} + {b} = {two}.
- All {p}'s soup filled {two} + {c} = {total} bowls.
= {total} bowls

In a [singing|drawing|baking] contest {p} gets {a} votes, {q} gets {d} votes more than {p}, and {r}
  gets {e} votes fewer than {q}. Nobody else takes part. Find the number of votes.
> We find out who got how many votes, starting from {p}.
- With more support, {q} gets {a} + {d} = {b} votes.
- {r} has {b} - {e} = {c} votes in the contest.
- For {p} or {q} there are {a} + {b} = {two} votes.
- As {r} is the only other one, {two} + {c} = {total} votes were given.
= {total vote}
""")


def ages_later(rng: Random) -> Problem:
    """Two ages, their difference, and some years to come."""
    a, d, y = rng.randint(4, 40), rng.randint(2, 20), rng.randint(2, 15)
    b, one, two = a + d, a + y, a + d + y
    return tell(
        rng, "ages_later", AGES_LATER, one + two,
        a=a, d=d, y=y, b=b, one=one, two=two, total=one + two,
    )  # fmt: skip


def ages_times(rng: Random) -> Problem:
    """One is several times as much as the other, and both grow by the same."""
    k, y = rng.randint(2, 5), rng.randint(2, 12)
    # These are often parents and children: the gap has to allow for that.
    a = rng.randint(-(-18 // (k - 1)), 95 // k)
    old, both = k * a, 2 * y
    now = a + old
    return tell(
        rng, "ages_times", AGES_TIMES, now + both,
        a=a, k=k, y=y, old=old, both=both, now=now, total=now + both,
    )  # fmt: skip


def average(rng: Random) -> Problem:
    """The average of three numbers, compared with a fourth."""
    mean = rng.randint(12, 50)
    x, y = mean + rng.randint(-9, 9), mean + rng.randint(-9, 9)
    z = 3 * mean - x - y
    if z < 2:
        x, y, z = mean, mean - 3, mean + 3
    g = mean - rng.randint(2, 9)
    return tell(
        rng, "average", AVERAGE, mean - g,
        x=x, y=y, z=z, g=g, mean=mean, two=x + y, sum=3 * mean, more=mean - g,
    )  # fmt: skip


def needed(rng: Random) -> Problem:
    """What the third of three has to be for a given average."""
    m = rng.randint(12, 50)
    x = m + rng.randint(-9, 9)
    y = m + rng.randint(-9, min(9, 2 * m - x - 2))
    goal, two = 3 * m, x + y
    return tell(
        rng, "needed", NEEDED, goal - two,
        m=m, x=x, y=y, goal=goal, two=two, need=goal - two,
    )  # fmt: skip


def more_fewer(rng: Random) -> Problem:
    """A chain of more and fewer, added up."""
    a, d = rng.randint(5, 45), rng.randint(2, 20)
    b = a + d
    e = rng.randint(2, min(20, b - 2))
    c = b - e
    return tell(
        rng, "more_fewer", MORE_FEWER, a + b + c,
        a=a, d=d, e=e, b=b, c=c, two=a + b, total=a + b + c,
    )  # fmt: skip


STRUCTURES = {
    "ages_later": ages_later,
    "ages_times": ages_times,
    "average": average,
    "needed": needed,
    "more_fewer": more_fewer,
}

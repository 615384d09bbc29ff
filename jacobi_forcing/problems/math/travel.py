"""Problems about distances, speeds and arrivals."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

TWO_LEGS = tellings("""
{p} walks for {h hour} at {v} km per hour and then [takes a bicycle|borrows a bicycle] and rides for
  {g hour} at {w} km per hour. How far does {p} get?
> Speed times hours gives the way, once on foot and once by bicycle.
- Walking brings {p} {v} x {h} = {first} km along the way.
- By bicycle {p.he} covers a further {w} x {g} = {second} km.
- The whole tour is the sum of the two parts, {first} + {second} = {total} km.
= {total} km

How many kilometers long is the river trip of {p} and {q}? They paddle {h hour} at a speed of {v} km
  per hour [in the morning|before lunch]. In the afternoon they manage {w} km per hour for {g hour}.
> The day has a quick and a slow half, and each has its own distance.
- Before noon {p} and {q} paddle {h} x {v} = {first} km.
- At the other speed they add {g} x {w} = {second} km in the afternoon.
- From start to end the river trip measures {first} + {second} = {total} km.
= {total} km

A [snail|beetle|tortoise] crosses {p}'s garden. For {h minute} it crawls {v} cm every minute. After
  a rest it crawls {w} cm every minute for {g} minutes more. Find the distance in cm.
> The rest in between does not move it, so there are two stretches to count.
- Crawling for {h} minutes, the animal makes {h} x {v} = {first} cm.
- Rested, it goes on for {g} x {w} = {second} cm.
- Its path across the garden is {first} + {second} = {total} cm in length.
= {total} cm

{p} runs on {h day} of the week, {v} km each time, and {q} runs on {g day}, {w} km each time. [Their
  coach|A friend] adds up all these kilometers. What is the sum?
> The list of the coach has one line for each runner, with days and kilometers.
- On the days when {p} trains, {p.he} collects {h} x {v} = {first} km.
- {q} comes to {g} x {w} = {second} km in the same week.
- The coach writes down {first} + {second} = {total} km for the two runners.
= {total} km

The road from {town} to the sea has a hilly part and a flat part. {p} [cycles|rides a pony] through
  the hills for {h hour} at {v} km an hour, and over the flat part for {g hour} at {w} km an hour.
  How long is the road?
> Both parts of the road follow from how fast and how long {p} travels.
- The hilly part has a length of {v} x {h} = {first} km.
- For the flat part we find {w} x {g} = {second} km.
- To reach the sea {p} must travel {first} + {second} = {total} km.
= {total} km
""")

COMMUTE = tellings("""
{p} lives {d} km from school and goes there and back on {n day} of the week. [On {day}|At the
  weekend] {p.he} also makes a trip of {e} km. How many km is that in the week?
> Every school day has two equal ways, and the extra trip happens just once.
- Going to school and home again is 2 x {d} = {both} km.
- In {n} days of school this becomes {both} x {n} = {daily} km.
- Together with the other trip, {p} travels {daily} + {e} = {total} km.
= {total} km

A mail carrier drives from {town} to a farm and returns on the same road, {d} km each way. She does
  that {n} times and then drives {e} km to [the garage|her sister]. What distance does she drive?
> The road to the farm is used in both directions, and the last drive in one only.
- One round to the farm has {d} + {d} = {both} km, out and home.
- She makes {n} rounds, hence {both} x {n} = {daily} km for the mail.
- The last drive must be added: {daily} + {e} = {total} km.
= {total} km

How far does {p} swim in all? The lake is {d} meters wide [at this spot|near the bridge]. {p} swims
  across and back {n} times, then {p.he} swims another {e} meters along the shore.
> We count the crossings in pairs and put the shore at the end.
- Across and back means 2 x {d} = {both} meters of swimming.
- Doing so {n} times gives {p} {both} x {n} = {daily} meters.
- With the way along the shore it is {daily} + {e} = {total} meters.
= {total} meters

The distance between the [house|cabin] and the well is {d} steps. {p} fetches water {n} times,
  always walking to the well and home again. Later {p.he} takes {e} steps to the barn. How many
  steps are these?
> A bucket of water always costs the same way, out and home.
- For one bucket of water {p} walks {d} + {d} = {both} steps.
- Fetching {n} buckets takes {both} x {n} = {daily} steps between the house and the well.
- When the barn is included, {p} has made {daily} + {e} = {total} steps.
= {total} steps

{p} visits {p.his} {relative.one} on {n day} this month. It is a ride of {d} miles each way [by
  bus|by train]. Besides this, {p} rides {e} miles to see {q}. How many miles does {p} ride this
  month?
> Every visit means riding twice, and the way to {q} is added afterwards.
- A visit to the {relative.one} and the ride home are 2 x {d} = {both} miles.
- Over {n} visits {p} rides {both} x {n} = {daily} miles.
- Seeing {q} as well makes it {daily} + {e} = {total} miles.
= {total} miles
""")

ARRIVAL = tellings("""
{carrier.a} leaves {town} at {start #}:00. It runs for {h hour}, then for {g hour} more, and on the
  way it makes {n} stops of half an hour. At what hour of the day (0 to 24) does it arrive?
> Driving and standing still both take time, and we need the sum of the two.
- Moving takes the {carrier.one} {h} + {g} = {moving} hours.
- The stops of half an hour add up to {n} / 2 = {rest} hours.
- For the whole trip it needs {moving} + {rest} = {whole} hours.
- Starting at {start}, it arrives at {start} + {whole} = {end} on the 24-hour clock.
= {end}

{p} drives {vehicle.a} to {town}. {p.he} sets off at {start #} o'clock in the morning, drives {h
  hour}, has {n} half-hour breaks [and some tea|with coffee], and drives {g hour} more. What does a
  24-hour clock show when {p} arrives?
> We follow {p}'s day from setting off to switching off the engine.
- First add the hours at the wheel, {h} + {g} = {moving}.
- Two breaks make one hour, so {p} rests for {n} / 2 = {rest} hours.
- Between leaving and arriving there are {moving} + {rest} = {whole} hours.
- The clock in {town} therefore shows {start} + {whole} = {end}.
= {end}

When will the {vehicle.one} reach {town}? It starts at {start #}:00 and is on the road for {h hour}
  before and {g hour} after lunch. It [also loses|loses] half an hour at each of {n} road works.
  Give the hour from 0 to 24.
> The road works make the trip longer, so they are counted besides the driving.
- Before and after lunch it is on the road for {h} + {g} = {moving} hours.
- At the road works it loses {n} / 2 = {rest} hours.
- This means {moving} + {rest} = {whole} hours until {town}.
- So the {vehicle.one} comes in at hour {start} + {whole} = {end}.
= {end}

{p} repairs {vehicle.a}. {p.he} begins at {start #}:00, spends {h hour} on the engine and {g hour}
  on the doors, and rests {n} times for half an hour. At which hour of a 24-hour day is {p}
  [done|ready]?
> Working and resting make up the time that {p} spends with the {vehicle.one}.
- Engine and doors keep {p} busy for {h} + {g} = {moving} hours.
- Resting half an hour {n} times takes {n} / 2 = {rest} hours.
- All of this is finished within {moving} + {rest} = {whole} hours.
- {p} can put the tools away at {start} + {whole} = {end}.
= {end}

The [old|new|little] {carrier.one} goes from {town} over the hills in {h hour} and on to the coast
  in {g hour}. It waits half an hour at each of {n} stations. If it departs at {start #}:00, what
  hour (0 to 24) is it at the coast?
> The trip has two parts on the move and some waiting in between.
- Hills and coast together need {h} + {g} = {moving} hours.
- Waiting costs half an hour each time, {n} / 2 = {rest} hours.
- The {carrier.one} is under way for {moving} + {rest} = {whole} hours.
- We count on from the departure: {start} + {whole} = {end}.
= {end}
""")

TIME_LEFT = tellings("""
{p} has to ride {total} km to {town}. For the first {h hour} {p.he} rides {v} km an hour. [Then it
  rains|After that the wind turns], and {p.he} only thinks about arriving, now at {w} km an hour.
  How many hours does the rest take?
> How long the rest takes depends on the way that is still in front of {p}.
- In the first hours {p} rides {v} x {h} = {done} km.
- On the signs to {town} one reads {total} - {done} = {gap} km now.
- With the new speed this takes {gap} / {w} = {k} hours.
= {k hour}

A road of {total} meters must be [painted|cleaned|swept]. One team does {v} meters an hour and stops
  after {h hour}. A second team, which does {w} meters an hour, finishes the job. How many hours
  does it work?
> We need the part that the second team finds when it begins.
- The first team takes care of {h} x {v} = {done} meters.
- It leaves {total} - {done} = {gap} meters of the road to the others.
- They are busy for {gap} / {w} = {k} hours until everything is finished.
= {k hour}

How many more days will {p} and {q} hike? Their path is {total} km long. They [have walked|walked]
  {v} km per day for {h day}. From now on they want to walk {w} km per day.
> The plan for the next days follows from what is left of the path.
- So far the two have put {h} x {v} = {done} km behind them.
- Before them lie {total} - {done} = {gap} km of the path.
- Walking {w} km a day, {p} and {q} arrive after {gap} / {w} = {k} more days.
= {k day}

{p} knits a scarf with {total} rows. On each of the first {h day} {p.he} makes {v} rows. [Later|In
  the holidays] {p.he} makes {w} rows a day. After how many of these later days is the scarf done?
> What {p} made early on does not have to be made again, so we look at the open rows.
- The early days give the scarf {v} x {h} = {done} rows.
- Rows that {p} still has to knit: {total} - {done} = {gap}.
- Doing {w} in a day, {p} needs {gap} / {w} = {k} days for them.
= {k day}

The pool [behind the house|of the school] holds {total} buckets of water. {p} carries {v} buckets an
  hour for {h hour}. Then {q} takes over with {w} buckets an hour. How many hours does {q} need to
  fill it?
> {q} has to fill whatever {p} has not filled.
- {p} pours in {h} x {v} = {done} buckets before the change.
- The pool can take {total} - {done} = {gap} buckets more.
- That keeps {q} going for {gap} / {w} = {k} hours.
= {k hour}
""")

APART = tellings("""
{p} and {q} stand {s} km apart and [drive|ride] away from each other, {p} at {v} km an hour and {q}
  at {w} km an hour. What distance lies between them after {h hour}?
> Going opposite ways, the two speeds work together, and the first distance stays.
- In one hour their distance grows by {v} + {w} = {both} km.
- During the whole ride that adds up to {both} x {h} = {grown} km.
- We also count the km that lay between {p} and {q} at first: {grown} + {s} = {total}.
= {total} km

Two boats leave the harbor [of {town}|at noon], one to the north at {v} km per hour and one to the
  south at {w} km per hour. The northern boat had a lead of {s} km. How far apart are they after {h
  hour}?
> Every hour both boats make the gap wider, and one of them had begun early.
- North and south together make {v} + {w} = {both} km every hour.
- After {h} hours this is {both} x {h} = {grown} km of open water.
- Including the lead, the boats are {grown} + {s} = {total} km apart.
= {total} km

{p} picks {v fruit} a minute and {q} picks {w}. Their basket already has {s fruit} in it. How many
  are in the basket after {h} minutes [of hard work|of picking]?
> Working at the same time, the two can be seen as one quick picker.
- As a team they pick {v} + {w} = {both} in each minute.
- So {h} minutes bring {both} x {h} = {grown} new {fruit}.
- Including those from before, the basket holds {grown} + {s} = {total}.
= {total fruit}

How many pages have {p} and {q} printed together? {p}'s machine prints {v} pages a minute, {q}'s
  prints {w}. Both run for {h minute}, and {s} pages were [ready|printed] before.
> What lay there before is one part, and the new paper is the other.
- Running side by side, the machines print {v} + {w} = {both} pages a minute.
- While they run, {both} x {h} = {grown} pages come out.
- Those that were there before count too, {grown} + {s} = {total} pages.
= {total} pages

Two hoses fill a pond. The thick hose gives {v} liters a minute and the thin one {w} liters. When
  {p} opens both, the pond holds [only |]{s} liters. How many liters does it hold after {h minute}?
> The pond has old water in it and gets new water from both hoses at once.
- Thick and thin hose give {v} + {w} = {both} liters each minute.
- {p} waits, and {both} x {h} = {grown} liters flow in.
- On top of the old water this makes {s} + {grown} = {total} liters in the pond.
= {total} liters
""")


def two_legs(rng: Random) -> Problem:
    """Two parts of a way at different speeds."""
    v, w, h, g = (rng.randint(low, high) for low, high in ((3, 12), (3, 12), (2, 8), (2, 8)))
    first, second = v * h, w * g
    return tell(
        rng, "two_legs", TWO_LEGS, first + second,
        v=v, w=w, h=h, g=g, first=first, second=second, total=first + second,
    )  # fmt: skip


def commute(rng: Random) -> Problem:
    """The same way there and back several times, and one more way."""
    d, n, e = rng.randint(2, 18), rng.randint(2, 5), rng.randint(3, 50)
    e = min(e, 199 - 2 * d * n)
    daily = 2 * d * n
    return tell(
        rng, "commute", COMMUTE, daily + e,
        d=d, n=n, e=e, both=2 * d, daily=daily, total=daily + e,
    )  # fmt: skip


def arrival(rng: Random) -> Problem:
    """Whole and half hours lead from a start to an end on the clock."""
    start, h, g, n = rng.randint(4, 10), rng.randint(2, 5), rng.randint(2, 5), rng.choice((4, 6))
    moving, rest = h + g, n // 2
    whole = moving + rest
    return tell(
        rng, "arrival", ARRIVAL, start + whole,
        start=start, h=h, g=g, n=n, moving=moving, rest=rest, whole=whole, end=start + whole,
    )  # fmt: skip


def time_left(rng: Random) -> Problem:
    """A part is done at one rate, the rest at another."""
    v, w, h, k = (rng.randint(low, high) for low, high in ((3, 12), (3, 12), (2, 8), (2, 8)))
    done, gap = v * h, w * k
    return tell(
        rng, "time_left", TIME_LEFT, k,
        total=done + gap, h=h, v=v, w=w, done=done, gap=gap, k=k,
    )  # fmt: skip


def apart(rng: Random) -> Problem:
    """Two rates act together for some time, on top of what was there."""
    v, w, h, s = rng.randint(3, 16), rng.randint(3, 16), rng.randint(2, 5), rng.randint(2, 39)
    both, grown = v + w, (v + w) * h
    return tell(
        rng, "apart", APART, grown + s,
        s=s, v=v, w=w, h=h, both=both, grown=grown, total=grown + s,
    )  # fmt: skip


STRUCTURES = {
    "two_legs": two_legs,
    "commute": commute,
    "arrival": arrival,
    "time_left": time_left,
    "apart": apart,
}

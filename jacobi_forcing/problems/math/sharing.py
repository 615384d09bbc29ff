"""Problems about parting, packing and pooling."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

REMAINDER = tellings("""
{p} opens two bags with {a} and {b sweet}. [At the party|At the birthday table] {k} children get the
  same number of them, as many as possible, and {p} eats what is left over. How many {sweet} does
  {p} eat?
> We need the number in both bags and the largest fair share for the party.
- Both bags together contain {a} + {b} = {total} {sweet}.
- Every child can get {e}, because {k} x {e} = {given} and one more each would be too many.
- For {p} there remain {total} - {given} = {rem}.
= {rem sweet}

How many {sticker} cannot be shared out? {p} brings {a sticker} and {q} brings {b}. They deal them
  out fairly to {k} friends [in {town}|at school] until there are too few for another round.
> Sharing stops when a round cannot be completed, so we look for the last full round.
- Putting the two collections on one pile makes {a} + {b} = {total}.
- With {e} full rounds, {e} x {k} = {given} {sticker} are gone.
- On the table lie {total} - {given} = {rem}, too few for {k} friends.
= {rem sticker}

On {day} a baker makes {a bun} and later {b} more. [All of them|They] are put into bags of {k}. How
  many {bun} are left without a full bag?
> A bag only counts when it is full, so we see how many of them the {bun} can fill.
- The baker has {a} + {b} = {total} {bun} to pack.
- With {e} bags, {e} x {k} = {given} of them are packed.
- What does not fill a bag is {total} - {given} = {rem}.
= {rem bun}

{p} plants flowers in rows of {k}. [In the shed|Behind the house] there are {a flower} and {b
  flower2}, and {p.he} makes as many full rows as possible. The plants that remain go to {q}. How
  many does {q} get?
> Whatever does not complete a row is meant for {q}.
- Mixed together, these are {a} + {b} = {total} plants.
- Full rows: {e}, since {e} x {k} = {given} still fits.
- {q} gets the other {total} - {given} = {rem} plants.
= {rem plant}

A coach has {a} girls and {b} boys [on the list|on the field] and forms teams of exactly {k}.
  Children who do not fit into a full team keep the score. How many keep the score?
> The score is kept by those who are too few to make one more team.
- Altogether {a} + {b} = {total} children came.
- The coach can form {e} teams, and {e} x {k} = {given} children play in them.
- Then {total} - {given} = {rem} of the children keep the score.
= {rem}
""")

UNEQUAL = tellings("""
In a box [under the roof|behind the door] there are {total sticker}, and {p} and {q} share them. {p}
  gets {d} more than {q}, [because {p} is older|as agreed]. How many {sticker} does {p} get?
> If nobody had more than the other, the sharing would be simple, so we make it equal first.
- Lay the extra {d} aside, then {total} - {d} = {even} {sticker} are shared equally.
- {q} receives half of these, {even} / 2 = {small}.
- With the extra ones {p} has {small} + {d} = {large}.
= {large sticker}

A string of {total} inches is cut into two pieces. The long piece is {d} inches longer than the
  short one. {p} uses the long one [for a kite|to tie a box|for a net]. How long is it?
> We imagine that both pieces were as short as the short one.
- Without the difference, {total} - {d} = {even} inches would be two equal pieces.
- The short piece measures {even} / 2 = {small} inches.
- {p} takes the other one, which is {small} + {d} = {large} inches long.
= {large} inches

How many {animal} does {q} have? {p} and {q} are farmers [near {town}|in the hills] and own {total
  animal} together, but {q} has {d} more of them than {p}.
> It helps to make the two farms equally large for a moment.
- Suppose {q} sold the {d} extra ones: the two farms would have {total} - {d} = {even}.
- Then each farm would keep {even} / 2 = {small} {animal}.
- In truth {q} has {small} + {d} = {large}.
= {large animal}

In two {container} there are {total fruit}. The red {container.one} holds {d} more than the blue
  one. Find how many {fruit} the red {container.one} [holds|has].
> The trick is to make both of them hold the same number.
- Take {d} out of the red {container.one}: {total} - {d} = {even} are left in both.
- Now both are equal, so the blue one holds {even} / 2 = {small} {fruit}.
- Put back what was taken: {small} + {d} = {large} in the red one.
= {large fruit}

{p} and {q} [worked together|painted a fence] and earned {total $}. {p} worked longer, so {p.he}
  gets {d $} more than {q}. How many dollars does {p} receive?
> The longer work is paid before the rest of the money is halved.
- Paying {p} the {d} dollars first leaves {total} - {d} = {even}.
- This is split in two: {even} / 2 = {small} dollars for {q}.
- So {p}'s longer work is paid with {small} + {d} = {large} dollars.
= {large $}
""")

BOXES = tellings("""
{p} bakes {a bun} [in the morning|before lunch] and {b} in the afternoon. The family eats {e} of
  them. The rest is packed in boxes of {k}. How many boxes does {p} fill?
> We need to know how many are left to be packed when the family is full.
- All day long {p} bakes {a} + {b} = {made} {bun}.
- When the family has eaten, {made} - {e} = {rest} are there.
- They fill {rest} / {k} = {boxes} boxes.
= {boxes} boxes

How many {container} do the farmers need? {p} picks {a fruit} and {q} picks {b}, [but sadly|but] {e}
  of them are bad and get thrown away. Into one {container.one} they put {k fruit}.
> Good fruit is all that counts, so we collect, sort, and then pack.
- Together the two farmers pick {a} + {b} = {made}.
- Only {made} - {e} = {rest} {fruit} are good.
- At {k} per {container.one} we need {rest} / {k} = {boxes} {container}.
= {boxes container}

A workshop [in {town}|on the corner] made {a craft} last week and {b} this week. But {e} broke on
  the way to the store, and the good ones are sent off in parcels of {k}. Find the number of
  parcels.
> From everything that was made we remove the broken pieces and pack what is good.
- Two weeks of work gave {a} + {b} = {made} {craft}.
- Good ones among them: {made} - {e} = {rest}.
- Number of parcels: {rest} / {k} = {boxes}.
= {boxes parcel}

{p} owns {a sticker} and gets {b} more [from {q}|for {p.his} birthday]. {p.he} gives {e} to a friend
  and puts the others into an album, {k} on each page. How many pages does {p} need?
> The album takes only what is not given to the friend.
- After the present {p} owns {a} + {b} = {made}.
- The friend gets some, so {made} - {e} = {rest} {sticker} go into the album.
- That is enough for {rest} / {k} = {boxes} pages.
= {boxes page}

For a trip {a} girls and {b} boys put their names on a list, but [on {day}|at the last minute] {e}
  of them stay at home. Each van takes {k} children. How many full vans leave?
> The vans are for those who really come along, not for the whole list.
- On the list there were {a} + {b} = {made} children.
- The trip is made by {made} - {e} = {rest}.
- With {k} in a van, that makes {rest} / {k} = {boxes} vans.
= {boxes van}
""")

FRACTION = tellings("""
There are {n member} [in a hall|in a camp near {town}]. Of these, {f share} go home early, and later
  {g} more go. How many {member} stay to the end?
> People leave in two groups, and we follow them one after the other.
- The first to leave are {n} / {f} = {part}.
- So {n} - {part} = {rest} {member} stay for the moment.
- When the others go too, {rest} - {g} = {left} are still there.
= {left member}

{p} has {n sticker}. {p.he} gives {f share} of them to {q} and [then|by accident] loses {g}. What
  number of {sticker} does {p} have now?
> First {q} takes a part, then chance takes some, and {p} has what is left.
- {q} is given {n} / {f} = {part} of the {sticker}.
- {p} keeps {n} - {part} = {rest} at first.
- The loss makes it {rest} - {g} = {left}.
= {left sticker}

How many {fruit} are left in the shop? [This morning|On {day}] there were {n}. By noon {f share} of
  them were sold, and in the afternoon {g} more.
> The shop starts with full shelves, so we take away the sales of each half of the day.
- Sales before noon: {n} / {f} = {part}.
- At noon the shop had {n} - {part} = {rest} {fruit}.
- By evening there were {rest} - {g} = {left}.
= {left fruit}

A farmer keeps {n animal}. {f share} of all are [white|black], {g} are spotted, and the other ones
  are brown. How many brown {animal} are there?
> Brown is what remains when the two other colors are set aside.
- One color group has {n} / {f} = {part} {animal}.
- Not in this group are {n} - {part} = {rest}.
- Without the spotted ones that makes {rest} - {g} = {left} brown {animal}.
= {left animal}

{p} opens {book.a} of {n page}. [On {day}|On the train] {p.he} finishes {f share} of it, and before
  bed another {g page}. How many pages remain?
> We follow {p} through the book, from the long part to the short one.
- The first part that {p} reads has {n} / {f} = {part} pages.
- It leaves {n} - {part} = {rest} for later.
- Before sleeping {p} brings this down to {rest} - {g} = {left}.
= {left page}
""")

RATIO = tellings("""
{p} makes [bead chains|long chains] with {a} red beads for every {b} blue ones. In the end {p.he}
  has used {total} beads. How many of them are blue?
> The chain repeats one small pattern, so we count how often it fits.
- One pattern takes {a} + {b} = {parts} beads.
- {p} has repeated it {total} / {parts} = {m} times.
- Each time {b} blue ones are used, {m} x {b} = {ask} in all.
= {ask bead}

In a mixed {container.one} there are {a fruit} for every {b fruit2}. The shop [in {town}|next door]
  counts {total} pieces of fruit in it. What is the number of {fruit2}?
> Everything in the {container.one} can be laid out in small groups that look the same.
- A small group of {fruit} and {fruit2} has {a} + {b} = {parts} pieces.
- We find {total} / {parts} = {m} such groups in the {container.one}.
- The {fruit2} among them are {b} x {m} = {ask}.
= {ask fruit2}

{p} and {q} divide {total sticker}. Whenever {p} takes {a}, {q} takes {b}. They go on [like this|in
  this way] until nothing is left. How many {sticker} does {q} have?
> Sharing goes on in equal rounds, and we want to know how many of them there are.
- In one round {a} + {b} = {parts} {sticker} are taken.
- So they play {total} / {parts} = {m} rounds.
- {q} ends with {m} x {b} = {ask}.
= {ask sticker}

How many {flower2} grow in the bed? {p} sets {a flower} and {b flower2} by turns, again and again,
  and there are {total} plants [in all|altogether].
> Planting by turns repeats itself, so one turn tells us about the whole bed.
- Count one turn: {a} + {b} = {parts} plants.
- The bed has room for {total} / {parts} = {m} turns.
- With {b} in every turn, {b} x {m} = {ask} {flower2} grow there.
= {ask flower2}

To mix a [green|soft gray|purple] paint, {p} takes {a} cups of one color and {b} cups of white. For
  {p.his} {room.one} {p.he} needs {total} cups of the mixture. How many cups of white is that?
> All mixings have the same recipe, and their number decides about the white paint.
- One mixing gives {a} + {b} = {parts} cups.
- {p} has to mix {total} / {parts} = {m} times for the {room.one}.
- The white paint for this is {m} x {b} = {ask} cups.
= {ask cup}
""")

POOL = tellings("""
{p} collects {a sticker} and {q} collects {b}. They put them together and divide them equally among
  {k} [friends|children]. Every one of these gives {g} away. How many {sticker} does each one keep?
> We make one pile, share it out, and look at a single share.
- The pile has {a} + {b} = {total} {sticker}.
- Among {k} people, each gets {total} / {k} = {e}.
- After giving some away, {e} - {g} = {left} are kept.
= {left sticker}

On a walk {p} finds {a} nuts and {q} finds {b}. [At home|By the fire] {k} hungry children share them
  fairly, and each child eats {g} at once. How many nuts does a child have left?
> Both bags of nuts go into one big bowl before the hungry children come to it.
- They carry home {a} + {b} = {total} nuts.
- A fair share is {total} / {k} = {e} nuts.
- A child that eats {g} still has {e} - {g} = {left}.
= {left nut}

How much does each person pay? A group of {k} friends owes {a $} for dinner and {b $} for the
  [taxi|cinema]. They split it evenly, but every one of them has a coupon for {g $}.
> All costs of the evening are shared first, and the coupon is used after that.
- The evening costs {a} + {b} = {total} dollars.
- Split by {k}, this is {total} / {k} = {e} dollars per person.
- The coupon lowers it to {e} - {g} = {left} dollars.
= {left $}

A farm has {a} sacks of oats and {b} sacks of corn for {k animal}. All of them get the same number
  of sacks. [By {day}|After a month] every one has emptied {g}. How many full sacks are left for
  each?
> We look at the food for one of the {animal} and at how much of it is gone.
- In the barn lie {a} + {b} = {total} sacks.
- Shared by the {animal}, it makes {total} / {k} = {e} sacks for one.
- Full sacks that remain for it: {e} - {g} = {left}.
= {left sack}

{p} must read {a} pages of {book.a} and {b} pages of notes within {k day}, the same number each day.
  [Today|This morning] {p.he} has already read {g page}. How many pages are left for today?
> Knowing the daily share, we can tell what today still has in store for {p}.
- The reading for {p} adds up to {a} + {b} = {total} pages.
- Over {k} days that is {total} / {k} = {e} a day.
- For the rest of this day there are {e} - {g} = {left}.
= {left page}
""")


def remainder(rng: Random) -> Problem:
    """Two heaps are shared as far as it goes, and some is left over."""
    k, e = rng.randint(3, 9), rng.randint(3, 12)
    rem = rng.randint(2, k - 1)
    given = k * e
    total = given + rem
    a = rng.randint(total // 4, total - total // 4)
    return tell(
        rng, "remainder", REMAINDER, rem,
        a=a, b=total - a, k=k, e=e, given=given, total=total, rem=rem,
    )  # fmt: skip


def unequal(rng: Random) -> Problem:
    """Two parts with a known sum and difference."""
    small, d = rng.randint(3, 60), rng.randint(2, 30)
    even, large = 2 * small, small + d
    return tell(
        rng, "unequal", UNEQUAL, large,
        total=even + d, d=d, even=even, small=small, large=large,
    )  # fmt: skip


def boxes(rng: Random) -> Problem:
    """Two batches, some of it lost, the rest packed in equal boxes."""
    k, full, e = rng.randint(3, 10), rng.randint(3, 12), rng.randint(2, 9)
    rest = k * full
    made = rest + e
    a = rng.randint(made // 4, made - made // 4)
    return tell(
        rng, "boxes", BOXES, full,
        a=a, b=made - a, e=e, k=k, made=made, rest=rest, boxes=full,
    )  # fmt: skip


def fraction(rng: Random) -> Problem:
    """A half, a third ... of a group, then some more."""
    f, part = rng.randint(2, 5), rng.randint(4, 30)
    n = f * part
    rest = n - part
    g = rng.randint(2, min(20, rest - 2))
    return tell(
        rng, "fraction", FRACTION, rest - g,
        n=n, f=f, g=g, part=part, rest=rest, left=rest - g,
    )  # fmt: skip


def ratio(rng: Random) -> Problem:
    """So many of one kind for every so many of the other."""
    a, b = rng.choice([(a, b) for a in range(2, 8) for b in range(2, 8) if a != b and a + b < 13])
    m = rng.randint(2, 12)
    return tell(
        rng, "ratio", RATIO, b * m,
        a=a, b=b, total=(a + b) * m, parts=a + b, m=m, ask=b * m,
    )  # fmt: skip


def pool(rng: Random) -> Problem:
    """Two contributions are put together, shared equally, and used in part."""
    k, e = rng.randint(3, 9), rng.randint(4, 12)
    g = rng.randint(2, e - 2)
    total = k * e
    a = rng.randint(total // 4, total - total // 4)
    return tell(
        rng, "pool", POOL, e - g,
        a=a, b=total - a, k=k, g=g, total=total, e=e, left=e - g,
    )  # fmt: skip


STRUCTURES = {
    "remainder": remainder,
    "unequal": unequal,
    "boxes": boxes,
    "fraction": fraction,
    "ratio": ratio,
    "pool": pool,
}

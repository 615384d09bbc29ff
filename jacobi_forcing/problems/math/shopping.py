"""Problems about prices, coins and savings."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

CHANGE = tellings("""
{p} goes to the market [on {day}|with a long list|early in the morning] and picks out {a fruit} at
  {pa $} each and {b fruit2} at {pb $} each. {p.he} hands over a ${bill #} note. How much change
  does {p} get back?
- The {fruit} come to {a} x {pa} = {ca} dollars.
- {p} also owes {b} x {pb} = {cb} dollars for the {fruit2}.
- Both kinds of fruit together are {ca} + {cb} = {total} dollars.
- The seller keeps that much of the note and returns {bill} - {total} = {left} dollars.
= {left $}

How much money is left of ${bill #} after [a trip|a quick walk] to the bakery? {p} buys {a bun} for
  the family and {b bun2} for the neighbors. One {bun.one} costs {pa $} and one {bun2.one} costs {pb
  $}.
- For the family {p} spends {a} x {pa} = {ca} dollars.
- What the neighbors eat costs {b} x {pb} = {cb} dollars.
- In the bakery {p.he} therefore leaves {ca} + {cb} = {total} dollars.
- Of the money there remains {bill} - {total} = {left} dollars.
= {left $}

School starts [soon|next week|on {day}], so {p} needs {a pen} and {b pen2}. In the shop [in {town}
  |]every {pen.one} is {pa $} and every {pen2.one} is {pb $}. {p} pays with ${bill #}. Work out
  {p.his} change.
- Price of the {pen}: {a} x {pa} = {ca} dollars.
- Price of the {pen2}: {b} x {pb} = {cb} dollars.
- The bill for school is {ca} + {cb} = {total} dollars.
- Change for {p}: {bill} - {total} = {left} dollars.
= {left $}

A toy shop [in {town}|near the station|by the river] sells {toy} for {pa $} and {toy2} for {pb $}.
  {p} has saved ${bill #} and takes {a toy} and {b toy2} home [for the children|as presents]. How
  many dollars does {p.he} still have?
- First count the {toy}, which cost {a} x {pa} = {ca} dollars in all.
- Then the {toy2} cost another {b} x {pb} = {cb} dollars.
- So the presents take away {ca} + {cb} = {total} dollars.
- From the savings of {p} we keep {bill} - {total} = {left} dollars.
= {left $}

At the [spring|autumn|school] fair, {q} sells {craft} for {pa $} and {craft2} for {pb $} a piece.
  {p} wants {a craft} and {b craft2} and gives {q} ${bill #}. What must {q} give back?
- {q} earns {a} x {pa} = {ca} dollars with the {craft}.
- With the {craft2} it is {b} x {pb} = {cb} dollars more.
- {p} should pay {ca} + {cb} = {total} dollars altogether.
- That was too much money by {bill} - {total} = {left} dollars, which {q} gives back.
= {left $}
""")

DISCOUNT = tellings("""
{p} has found {gadget.a} [in a shop window|in {town}|on the internet] that normally costs {price $}.
  Today it is {pct #}% cheaper, but bringing it home costs {fee $}. What does {p} pay in the end?
- {pct}% means one part out of {d}, so the shop takes off {price} / {d} = {off} dollars.
- That makes the {gadget.one} itself {price} - {off} = {sale} dollars.
- With the delivery {p} pays {sale} + {fee} = {total} dollars.
= {total $}

Everything must go! [This week|Until {day}] a store gives {pct #}% off all {clothing}. {p} chooses
  {clothing.a} with a price tag of {price $} and also a gift box for {fee $}, which is not reduced.
  How much is that together?
- The reduction on the tag is {price} / {d} = {off} dollars, since {pct}% is 1 of {d} equal parts.
- After the sale the {clothing.one} costs {price} - {off} = {sale} dollars.
- Adding the gift box gives {sale} + {fee} = {total} dollars.
= {total $}

What is the final bill? The price of {gadget.a} is {price $}. {p} is a [regular|loyal|good] customer
  and gets a {pct #}% discount on it. {p.he} adds a repair kit for {fee $} at full price.
- Start with the discount for {p}: {price} / {d} = {off} dollars, because {pct}% is 1/{d}.
- Without it the {gadget.one} is down to {price} - {off} = {sale} dollars.
- The repair kit raises the bill to {sale} + {fee} = {total} dollars.
= {total $}

{q} sells {p.his} old friend {p} {gadget.a}. The price was {price $}, but {q} lowers it by {pct #}%
  because of a [scratch|small dent|missing screw]. {p} spends {fee $} more on having it mended. How
  much has {p} spent?
- To find {pct}% of the price, divide by {d}: {price} / {d} = {off}.
- {q} therefore asks for only {price} - {off} = {sale} dollars.
- Mending the {gadget.one} brings the cost for {p} to {sale} + {fee} = {total} dollars.
= {total $}

[Winter|Summer] is over and {clothing} are reduced by {pct #}%. {p} [sees|likes] one that used to
  cost {price $}. {p.his} bus ticket to the shop was {fee $}. How much does {p} spend on the
  {clothing.one} and the bus?
- One {clothing.one} gets cheaper by {price} / {d} = {off} dollars ({pct}% is a part of {d}).
- {p} pays {price} - {off} = {sale} dollars at the till.
- The bus has to be counted too, {sale} + {fee} = {total} dollars.
= {total $}
""")

TICKETS = tellings("""
A family visits the [zoo|aquarium|castle] in {town}. Tickets are {pa $} for adults and {pc $} for
  children, and there are {a} adults and {c} children. They have a voucher for {v $}. How much do
  they pay?
- The adults need {a} x {pa} = {ca} dollars.
- The tickets of the children cost {c} x {pc} = {cc} dollars.
- Without the voucher it would be {ca} + {cc} = {sum} dollars.
- The voucher brings it down to {sum} - {v} = {total} dollars.
= {total $}

{p} orders tickets for the [circus|puppet theater|school play]: {a} for grown-ups at {pa $} each and
  {c} for kids at {pc $} each. Since {p.he} helped to put up the chairs, {p.he} gets {v $} off. What
  is the price?
- Grown-ups: {a} x {pa} = {ca} dollars.
- Kids: {c} x {pc} = {cc} dollars.
- All of the seats cost {ca} + {cc} = {sum} dollars.
- {p} worked for {v} of them, so {sum} - {v} = {total} dollars must be paid.
= {total $}

How much does the boat trip cost the group of {p}? [On board|Today] there are {a} adults and {c}
  children. The captain asks {pa $} from an adult and {pc $} from a child, and {p} has already paid
  {v $} of it.
- For its adults the group pays {a} x {pa} = {ca} dollars to the captain.
- Its children sail for {c} x {pc} = {cc} dollars.
- The whole trip is worth {ca} + {cc} = {sum} dollars.
- Some of it was paid by {p} before, which leaves {sum} - {v} = {total} dollars.
= {total $}

The swimming pool in {town} charges {pa $} per adult and {pc $} per child. [On {day}|On a hot day]
  {p} brings {a} adults and {c} children. A coupon from the newspaper saves them {v $}. Find the
  cost of the visit.
- Adults swim for {a} x {pa} = {ca} dollars.
- To that we add {c} x {pc} = {cc} dollars for the young swimmers.
- The pool would get {ca} + {cc} = {sum} dollars.
- Thanks to the newspaper, {p} pays {sum} - {v} = {total} dollars.
= {total $}

{p} and {q} take their relatives to a concert. They buy {c} child tickets for {pc $} each and {a}
  adult tickets for {pa $} each. {q} pays {v $} and {p} pays [the rest|everything else]. What does
  {p} pay?
- The child tickets are {c} x {pc} = {cc} dollars.
- Adult tickets for the concert are {a} x {pa} = {ca} dollars.
- {p} and {q} share a bill of {cc} + {ca} = {sum} dollars.
- Since {q} gives {v}, for {p} there are {sum} - {v} = {total} dollars left to pay.
= {total $}
""")

COINS = tellings("""
{p} empties [a jar|an old jar|a coat pocket] and finds {n dime} and {m nickel}. A dime is 10 cents
  and a nickel is 5 cents. {p.he} buys {sweet.a} for {s cent}. How many cents are left?
- The dimes are worth {n} x 10 = {cn} cents.
- The nickels bring {m} x 5 = {cm} cents.
- In total {p} has found {cn} + {cm} = {sum} cents.
- Buying the {sweet.one} leaves {sum} - {s} = {left} cents.
= {left} cents

How much money is left in the piggy bank? {p} put in {m} coins of 5 cents and {n} coins of 10 cents,
  but [yesterday|later|this morning] {p.he} took out {s cent} for {fruit.a}.
- With the small coins {p} saved {m} x 5 = {cm} cents.
- The bigger ones make {n} x 10 = {cn} cents.
- So the piggy bank once held {cm} + {cn} = {sum} cents.
- It lost the price of the {fruit.one}: {sum} - {s} = {left} cents.
= {left} cents

A machine sells {sticker} for {s cent}. {p} drops in {n} ten-cent coins and {m} five-cent coins to
  get one. How many cents should the machine [give back|return]?
- Ten-cent coins: {n} x 10 = {cn} cents.
- Five-cent coins: {m} x 5 = {cm} cents.
- The machine has received {cn} + {cm} = {sum} cents.
- It keeps the price of one {sticker.one} and gives back {sum} - {s} = {left} cents.
= {left} cents

{p} counts the coins from the [lemonade|cookie|juice] stand. There are {n dime}, worth 10 cents
  each, and {m nickel}, worth 5 cents each. Of this money {s cent} belong to {q}. How much belongs
  to {p}?
- First the dimes: {n} x 10 = {cn} cents.
- Next come the nickels with {m} x 5 = {cm} cents.
- The stand has earned {cn} + {cm} = {sum} cents.
- {q} takes a part, so {p} may keep {sum} - {s} = {left} cents.
= {left} cents

{q} gives {p} {m} five-cent coins, and {p.his} grandmother gives {p.him} {n} ten-cent coins.
  [Then|On the way home|Soon after] {p} loses {s cent}. How many cents does {p} still have?
- From {q} there are {m} x 5 = {cm} cents.
- Grandmother gave {n} x 10 = {cn} cents.
- Before the loss {p} had {cm} + {cn} = {sum} cents.
- Now {sum} - {s} = {left} cents remain.
= {left} cents
""")

SAVINGS = tellings("""
{p} dreams of {gadget.a} for {goal $}. {p.he} [already has|has saved] {have $} and puts aside {step
  $} every week. After how many weeks can {p.he} buy it?
- {p} still needs {goal} - {have} = {gap} dollars.
- At {step} dollars a week that takes {gap} / {step} = {k} weeks.
- Looking back, {step} x {k} = {gap} dollars is just what was missing for the {gadget.one}.
= {k week}

How many days must {p} wash cars [in {town}|on the street] before {p.he} can pay {goal $} for
  {gadget.a}? {p.his} {relative.one} gave {p.him} {have $} for it, and a day of washing cars brings
  {step $}.
- The gift from the {relative.one} shrinks the price to {goal} - {have} = {gap} dollars.
- Each day covers {step} of them, hence {gap} / {step} = {k} days of work.
- Indeed {k} x {step} = {gap}, so nothing is left to pay.
= {k day}

The class of {p} wants to collect {goal $} for [a trip|a school garden|new books]. So far there are
  {have $} in the box. If selling {bun} brings in {step $} each day, how many days will it take?
- Missing in the box: {goal} - {have} = {gap} dollars.
- Days of selling {bun}: {gap} / {step} = {k}.
- As a check, {k} x {step} = {gap} and {have} + {gap} = {goal}.
= {k day}

{p} borrowed {goal $} from {q} to buy {gadget.a}. {p.he} has [already|so far] paid back {have $} and
  now returns {step $} each month. How many more months will that last?
- Of the loan, {goal} - {have} = {gap} dollars are still open.
- {q} gets {step} dollars per month, which means {gap} / {step} = {k} payments.
- These {k} payments are {k} x {step} = {gap} dollars, and then {p} is free of the debt.
= {k month}

Tickets for the [big|summer|final] match cost {goal $}. {p} has {have $}, and every dog walk earns
  {p.him} {step $}. Find the number of walks that {p.he} needs.
- Take the money at hand away from the price: {goal} - {have} = {gap}.
- One walk gives {step} dollars, thus {p} needs {gap} / {step} = {k} walks.
- After them {p} owns {have} + {gap} = {goal} dollars, enough for the match.
= {k walk}
""")

EARNINGS = tellings("""
{p} works [in a garden|at a farm|in a cafe] for {n hour} and gets {pay $} an hour. The owner adds a
  tip of {tip $}. On the way home {p.he} spends {s $}. How much does {p} bring home?
- For the hours of work {p} gets {n} x {pay} = {wage} dollars.
- The tip lifts this to {wage} + {tip} = {sum} dollars.
- After shopping on the way, {sum} - {s} = {left} dollars come home.
= {left $}

{p} makes {craft} and sells {n} of them for {pay $} each at the market in {town}. {p.he} had {tip $}
  in the cash box before, and the stand costs {s $} of rent. How much is in the box after the rent
  is paid?
- Selling the {craft} fills the box with {n} x {pay} = {wage} dollars.
- Together with the money from before it holds {wage} + {tip} = {sum} dollars.
- The rent goes away: {sum} - {s} = {left} dollars.
= {left $}

How rich is {p} [now|this evening]? {p.he} had {tip $} [in the morning|at breakfast]. Then {p.he}
  delivered {n} parcels for {pay $} each, and in the evening {p.he} paid {s $} for {clothing.a}.
- The parcels were paid with {n} x {pay} = {wage} dollars.
- With the morning money, {p} had {tip} + {wage} = {sum} dollars.
- Then {clothing.a} was bought, so {sum} - {s} = {left} dollars are still there.
= {left $}

For every lawn that {p} mows, the neighbors pay {pay $}. This [month|summer] {p.he} mows {n} lawns
  and also earns {tip $} by feeding a cat. Petrol for the mower costs {s $}. What is {p.his} profit?
- Lawns: {n} x {pay} = {wage} dollars.
- Lawns and cat: {wage} + {tip} = {sum} dollars.
- Profit of {p} without the petrol money: {sum} - {s} = {left} dollars.
= {left $}

{p} teaches {q} to play the [piano|flute|violin]. After {n} lessons at {pay $} each, {q} pays for
  all of them and adds {tip $} for the notes. {p} then buys strings for {s $}. What is left of the
  money?
- The lessons of {q} cost {n} x {pay} = {wage} dollars.
- Paying for the notes too, {q} hands over {wage} + {tip} = {sum} dollars.
- {p} buys strings and keeps {sum} - {s} = {left} dollars.
= {left $}
""")


def change(rng: Random) -> Problem:
    """Two kinds of goods are paid for with one note."""
    a, pa, b, pb = (rng.randint(2, 7) for _ in range(4))
    ca, cb = a * pa, b * pb
    total = ca + cb
    bill = next(note for note in (20, 50, 100) if note > total)
    left = bill - total
    return tell(
        rng, "change", CHANGE, left,
        a=a, pa=pa, b=b, pb=pb, bill=bill, ca=ca, cb=cb, total=total, left=left,
    )  # fmt: skip


def discount(rng: Random) -> Problem:
    """Something is cheaper by a percentage, something else is added."""
    d, most = rng.choice(((10, 15), (5, 24), (4, 30), (2, 40)))
    off, fee = rng.randint(3, most), rng.randint(2, 15)
    price = d * off
    sale = price - off
    return tell(
        rng, "discount", DISCOUNT, sale + fee,
        price=price, pct=100 // d, fee=fee, d=d, off=off, sale=sale, total=sale + fee,
    )  # fmt: skip


def tickets(rng: Random) -> Problem:
    """Adults and children pay different prices, and some of it need not be paid."""
    a, c, pa, v = rng.randint(2, 6), rng.randint(2, 9), rng.randint(5, 12), rng.randint(2, 14)
    pc = rng.randint(3, min(8, pa - 1))
    ca, cc = a * pa, c * pc
    total = ca + cc - v
    return tell(
        rng, "tickets", TICKETS, total,
        a=a, pa=pa, c=c, pc=pc, v=v, ca=ca, cc=cc, sum=ca + cc, total=total,
    )  # fmt: skip


def coins(rng: Random) -> Problem:
    """Coins of two kinds are added up, then some of the money goes away."""
    n, m = rng.randint(2, 9), rng.randint(2, 12)
    cn, cm = 10 * n, 5 * m
    s = rng.randint(5, cn + cm - 5)
    left = cn + cm - s
    return tell(
        rng, "coins", COINS, left,
        n=n, m=m, s=s, cn=cn, cm=cm, sum=cn + cm, left=left,
    )  # fmt: skip


def savings(rng: Random) -> Problem:
    """Equal amounts are put aside until a goal is reached."""
    have, step, k = rng.randint(5, 50), rng.randint(2, 12), rng.randint(2, 12)
    gap = step * k
    return tell(
        rng, "savings", SAVINGS, k,
        goal=have + gap, have=have, step=step, gap=gap, k=k,
    )  # fmt: skip


def earnings(rng: Random) -> Problem:
    """Pay for pieces of work, something on top of it, something spent."""
    n, pay, tip = rng.randint(2, 12), rng.randint(3, 12), rng.randint(2, 20)
    wage = n * pay
    s = rng.randint(2, min(30, wage + tip - 1))
    left = wage + tip - s
    return tell(
        rng, "earnings", EARNINGS, left,
        n=n, pay=pay, tip=tip, s=s, wage=wage, sum=wage + tip, left=left,
    )  # fmt: skip


STRUCTURES = {
    "change": change,
    "discount": discount,
    "tickets": tickets,
    "coins": coins,
    "savings": savings,
    "earnings": earnings,
}

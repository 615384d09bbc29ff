"""Problems about prices in shops and at ticket offices."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

CHANGE = tellings("""
{p} goes to the market [on {day}|with a long list|early in the morning] and picks out {a fruit} at
  {pa $} each and {b fruit2} at {pb $} each. {p.he} hands over a ${bill #} note. How much change
  does {p} get back?
> To know the change, we compare {p}'s note with the price of all the fruit.
- The {fruit} come to {a} x {pa} = {ca} dollars.
- {p} also owes {b} x {pb} = {cb} dollars for the {fruit2}.
- Both kinds of fruit together are {ca} + {cb} = {total} dollars.
- The seller keeps that much of the note and returns {bill} - {total} = {left} dollars.
= {left $}

How much money is left of ${bill #} after [a trip|a quick walk] to the bakery? {p} buys {a bun} for
  the family and {b bun2} for the neighbors. One {bun.one} costs {pa $} and one {bun2.one} costs {pb
  $}.
> What {p} has left depends on the two orders at the bakery, so we price them one at a time.
- For the family {p} spends {a} x {pa} = {ca} dollars.
- What the neighbors eat costs {b} x {pb} = {cb} dollars.
- In the bakery {p.he} therefore leaves {ca} + {cb} = {total} dollars.
- Of the money there remains {bill} - {total} = {left} dollars.
= {left $}

School starts [soon|next week|on {day}], so {p} needs {a pen} and {b pen2}. In the shop [in {town}
  |]every {pen.one} is {pa $} and every {pen2.one} is {pb $}. {p} pays with ${bill #}. Work out
  {p.his} change.
> Two kinds of school things are on the bill, and each has its own price.
- Price of the {pen}: {a} x {pa} = {ca} dollars.
- Price of the {pen2}: {b} x {pb} = {cb} dollars.
- The bill for school is {ca} + {cb} = {total} dollars.
- Change for {p}: {bill} - {total} = {left} dollars.
= {left $}

A toy shop [in {town}|near the station|by the river] sells {toy} for {pa $} and {toy2} for {pb $}.
  {p} has saved ${bill #} and takes {a toy} and {b toy2} home [for the children|as presents]. How
  many dollars does {p.he} still have?
> We find out what all the presents cost and take it from the savings.
- First count the {toy}, which cost {a} x {pa} = {ca} dollars in all.
- Then the {toy2} cost another {b} x {pb} = {cb} dollars.
- So the presents take away {ca} + {cb} = {total} dollars.
- From {p}'s savings we keep {bill} - {total} = {left} dollars.
= {left $}

At the [spring|autumn|school] fair, {q} sells {craft} for {pa $} and {craft2} for {pb $} each. {p}
  wants {a craft} and {b craft2} and gives {q} ${bill #}. What must {q} give back?
> The money to give back is whatever {p} handed over beyond the right price.
- {q} earns {a} x {pa} = {ca} dollars with the {craft}.
- With the {craft2} it is {b} x {pb} = {cb} dollars more.
- {p} should pay {ca} + {cb} = {total} dollars altogether.
- That was too much money by {bill} - {total} = {left} dollars, which {q} gives back.
= {left $}
""")

DISCOUNT = tellings("""
{p} has found {gadget.a} [in a shop window|in {town}|on the internet] that normally costs {price $}.
  Today it is {pct #}% cheaper, but bringing it home costs {fee $}. What does {p} pay in the end?
> The discount only touches the {gadget.one}, while the way home is charged in full.
- {pct}% means one part out of {d}, so the shop takes off {price} / {d} = {off} dollars.
- That makes the {gadget.one} itself {price} - {off} = {sale} dollars.
- With the delivery {p} pays {sale} + {fee} = {total} dollars.
= {total $}

Everything must go! [This week|Until {day}] a store gives {pct #}% off all {clothing}. {p} chooses
  {clothing.a} with a price tag of {price $} and also a gift box for {fee $}, which is not reduced.
  How much is that together?
> First the tag gets its reduction, then the gift box joins it at the normal price.
- The reduction on the tag is {price} / {d} = {off} dollars, since {pct}% is 1 of {d} equal parts.
- After the sale the {clothing.one} costs {price} - {off} = {sale} dollars.
- Adding the gift box gives {sale} + {fee} = {total} dollars.
= {total $}

What is the final bill? The price of {gadget.a} is {price $}. {p} is a [regular|loyal|good] customer
  and gets a {pct #}% discount on it. {p.he} adds a repair kit for {fee $} at full price.
> We lower the price of the {gadget.one} before the kit is put on the bill.
- Start with the discount for {p}: {price} / {d} = {off} dollars, because {pct}% is 1/{d}.
- Without it the {gadget.one} is down to {price} - {off} = {sale} dollars.
- The repair kit raises the bill to {sale} + {fee} = {total} dollars.
= {total $}

{q} sells {p.his} old friend {p} {gadget.a}. The price was {price $}, but {q} lowers it by {pct #}%
  because of a [scratch|small dent|missing screw]. {p} spends {fee $} more on having it mended. How
  much has {p} spent?
> What {p} spends has two parts, the money for {q} and the money for mending.
- To find {pct}% of the price, divide by {d}: {price} / {d} = {off}.
- {q} therefore asks for only {price} - {off} = {sale} dollars.
- Mending the {gadget.one} brings the cost for {p} to {sale} + {fee} = {total} dollars.
= {total $}

[Winter|Summer] is over and {clothing} are reduced by {pct #}%. {p} [sees|likes] one that used to
  cost {price $}. {p.his} bus ticket to the shop was {fee $}. How much does {p} spend on the
  {clothing.one} and the bus?
> Two things cost money here, the cheaper {clothing.one} and the way to the shop.
- One {clothing.one} gets cheaper by {price} / {d} = {off} dollars ({pct}% is 1 part of {d}).
- {p} pays {price} - {off} = {sale} dollars at the till.
- The bus has to be counted too, {sale} + {fee} = {total} dollars.
= {total $}
""")

TICKETS = tellings("""
A family visits the [zoo|aquarium|castle] in {town}. Tickets are {pa $} for adults and {pc $} for
  children, and there are {a} adults and {c} children. They have a voucher for {v $}. How much do
  they pay?
> Both age groups are priced on their own, and the voucher comes off at the end.
- The adults need {a} x {pa} = {ca} dollars.
- The tickets of the children cost {c} x {pc} = {cc} dollars.
- Without the voucher it would be {ca} + {cc} = {sum} dollars.
- The voucher brings it down to {sum} - {v} = {total} dollars.
= {total $}

{p} orders tickets for the [circus|puppet theater|school play]: {a} for grown-ups at {pa $} each and
  {c} for kids at {pc $} each. Since {p.he} helped to put up the chairs, {p.he} gets {v $} off. What
  is the price?
> Let us look at the big and the small visitors before thanking {p} for the help.
- Grown-ups: {a} x {pa} = {ca} dollars.
- Kids: {c} x {pc} = {cc} dollars.
- All of the seats cost {ca} + {cc} = {sum} dollars.
- {p} worked for {v} of them, so {sum} - {v} = {total} dollars must be paid.
= {total $}

How much does the boat trip cost {p}'s group? [On board|Today] there are {a} adults and {c}
  children. The captain asks {pa $} from an adult and {pc $} from a child, and {p} has already paid
  {v $} of it.
> The captain counts big and small passengers, but a part of the fare is settled.
- For its adults the group pays {a} x {pa} = {ca} dollars to the captain.
- Its children sail for {c} x {pc} = {cc} dollars.
- The whole trip is worth {ca} + {cc} = {sum} dollars.
- Some of it was paid by {p} before, which leaves {sum} - {v} = {total} dollars.
= {total $}

The swimming pool in {town} charges {pa $} per adult and {pc $} per child. [On {day}|On a hot day]
  {p} brings {a} adults and {c} children. A coupon from the newspaper saves them {v $}. Find the
  cost of the visit.
> The visit has a full price, which the coupon makes a little smaller.
- Adults swim for {a} x {pa} = {ca} dollars.
- To that we add {c} x {pc} = {cc} dollars for the young swimmers.
- The pool would get {ca} + {cc} = {sum} dollars.
- Thanks to the newspaper, {p} pays {sum} - {v} = {total} dollars.
= {total $}

{p} and {q} take their relatives to a concert. They buy {c} child tickets for {pc $} each and {a}
  adult tickets for {pa $} each. {q} pays {v $} and {p} pays [the rest|everything else]. What does
  {p} pay?
> {p} covers the part of the ticket bill that {q} does not.
- The child tickets are {c} x {pc} = {cc} dollars.
- Adult tickets for the concert are {a} x {pa} = {ca} dollars.
- {p} and {q} share a bill of {cc} + {ca} = {sum} dollars.
- Since {q} gives {v}, for {p} there are {sum} - {v} = {total} dollars left to pay.
= {total $}
""")


def change(rng: Random) -> Problem:
    """Two kinds of goods are paid for with one note."""
    a, pa, b, pb = (rng.randint(2, 7) for _ in range(4))
    ca, cb = a * pa, b * pb
    total = ca + cb
    bill = next(note for note in (20, 50, 100) if note > total + 1)
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


STRUCTURES = {
    "change": change,
    "discount": discount,
    "tickets": tickets,
}

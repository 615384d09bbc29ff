"""Problems about money that is found, saved, earned and spent."""

from __future__ import annotations

from random import Random

from ..problem import Problem
from .phrasing import tell, tellings

COINS = tellings("""
{p} empties [a jar|an old jar|a coat pocket] and finds {n dime} and {m nickel}. A dime is 10 cents
  and a nickel is 5 cents. {p.he} buys {bun.a} for {s cent}. How many cents are left?
> We change both sorts of coins into cents and then go shopping.
- The dimes are worth {n} x 10 = {cn} cents.
- The nickels bring {m} x 5 = {cm} cents.
- In total {p} has found {cn} + {cm} = {sum} cents.
- Buying the {bun.one} leaves {sum} - {s} = {left} cents.
= {left} cents

How much money is left in the piggy bank? {p} put in {m} coins of 5 cents and {n} coins of 10 cents,
  but [yesterday|later|this morning] {p.he} took out {s cent} for {fruit.a}.
> The piggy bank was filled with two sorts of coins before something was taken out.
- With the small coins {p} saved {m} x 5 = {cm} cents.
- The bigger ones make {n} x 10 = {cn} cents.
- So the piggy bank once held {cm} + {cn} = {sum} cents.
- It lost the price of the {fruit.one}: {sum} - {s} = {left} cents.
= {left} cents

A machine sells {pen} for {s cent}. {p} drops in {n} ten-cent coins and {m} five-cent coins to get
  one. How many cents should the machine [give back|return]?
> We compare the value of the coins in the slot with what is sold.
- Ten-cent coins: {n} x 10 = {cn} cents.
- Five-cent coins: {m} x 5 = {cm} cents.
- The machine has received {cn} + {cm} = {sum} cents.
- It keeps the price of one {pen.one} and gives back {sum} - {s} = {left} cents.
= {left} cents

{p} counts the coins from the [lemonade|cookie|juice] stand. There are {n dime}, worth 10 cents
  each, and {m nickel}, worth 5 cents each. Of this money {s cent} belong to {q}. How much belongs
  to {p}?
> Not all the coins in the stand are for {p}, so we begin with their full value.
- First the dimes: {n} x 10 = {cn} cents.
- Next come the nickels with {m} x 5 = {cm} cents.
- The stand has earned {cn} + {cm} = {sum} cents.
- {q} takes a part, so {p} may keep {sum} - {s} = {left} cents.
= {left} cents

{q} gives {p} {m} five-cent coins, and {p.his} grandmother gives {p.him} {n} ten-cent coins.
  [Then|On the way home|Soon after] {p} loses {s cent}. How many cents does {p} still have?
> We add up the two gifts, and only then think of the bad luck on the way.
- From {q} there are {m} x 5 = {cm} cents.
- Grandmother gave {n} x 10 = {cn} cents.
- Before the loss {p} had {cm} + {cn} = {sum} cents.
- Now {sum} - {s} = {left} cents remain.
= {left} cents
""")

SAVINGS = tellings("""
{p} dreams of {gadget.a} for {goal $}. {p.he} [already has|has saved] {have $} and puts aside {step
  $} every week. After how many weeks can {p.he} buy it?
> Only the money that is still missing has to be saved, week after week.
- {p} still needs {goal} - {have} = {gap} dollars.
- At {step} dollars a week that takes {gap} / {step} = {k} weeks.
- Looking back, {step} x {k} = {gap} dollars is just what was missing for the {gadget.one}.
= {k week}

How many days must {p} wash cars [in {town}|on the street] before {p.he} can pay {goal $} for
  {gadget.a}? {p.his} {relative.one} gave {p.him} {have $} for it, and a day of washing cars brings
  {step $}.
> The {relative.one} has made the work shorter, so we look at the rest of the price.
- The gift from the {relative.one} shrinks the price to {goal} - {have} = {gap} dollars.
- Each day covers {step} of them, hence {gap} / {step} = {k} days of work.
- Indeed {k} x {step} = {gap}, so nothing is left to pay.
= {k day}

{p}'s class wants to collect {goal $} for [a trip|a school garden|new books]. So far there are {have
  $} in the box. If selling {bun} brings in {step $} each day, how many days will it take?
> We ask how far the box is from its goal and how quickly it gets closer.
- Missing in the box: {goal} - {have} = {gap} dollars.
- Days of selling {bun}: {gap} / {step} = {k}.
- As a check, {k} x {step} = {gap} and {have} + {gap} = {goal}.
= {k day}

{p} borrowed {goal $} from {q} to buy {gadget.a}. {p.he} has [already|so far] paid back {have $} and
  now returns {step $} each month. How many more months will that last?
> Each month makes the debt to {q} smaller by the same amount.
- Of the loan, {goal} - {have} = {gap} dollars are still open.
- {q} gets {step} dollars per month, which means {gap} / {step} = {k} payments.
- These {k} payments are {k} x {step} = {gap} dollars, and then {p} is free of the debt.
= {k month}

Tickets for the [big|summer|final] match cost {goal $}. {p} has {have $}, and every dog walk earns
  {p.him} {step $}. Find the number of walks that {p.he} needs.
> How many dogs have to be walked depends on the money that {p} does not have yet.
- Take the money at hand away from the price: {goal} - {have} = {gap}.
- One walk gives {step} dollars, thus {p} needs {gap} / {step} = {k} walks.
- After them {p} owns {have} + {gap} = {goal} dollars, enough for the match.
= {k walk}
""")

EARNINGS = tellings("""
{p} works [in a garden|at a farm|in a cafe] for {n hour} and gets {pay $} an hour. The owner adds a
  tip of {tip $}. On the way home {p.he} spends {s $}. How much does {p} bring home?
> The pay comes from the hours and the tip, and a part of it is spent again.
- For the hours of work {p} gets {n} x {pay} = {wage} dollars.
- The tip lifts this to {wage} + {tip} = {sum} dollars.
- After shopping on the way, {sum} - {s} = {left} dollars come home.
= {left $}

{p} makes {craft} and sells {n} of them for {pay $} each at the market in {town}. {p.he} had {tip $}
  in the cash box before, and the stand costs {s $} of rent. How much is in the box after the rent
  is paid?
> We follow {p}'s cash box from the sale to the paying of the stand.
- Selling the {craft} fills the box with {n} x {pay} = {wage} dollars.
- Together with the money from before it holds {wage} + {tip} = {sum} dollars.
- The rent goes away: {sum} - {s} = {left} dollars.
= {left $}

How rich is {p} [now|this evening]? {p.he} had {tip $} [in the morning|at breakfast]. Then {p.he}
  delivered {n} parcels for {pay $} each, and in the evening {p.he} paid {s $} for {clothing.a}.
> Let us go through {p}'s day, from the first parcel to the evening.
- The parcels were paid with {n} x {pay} = {wage} dollars.
- With the morning money, {p} had {tip} + {wage} = {sum} dollars.
- Then {clothing.a} was bought, so {sum} - {s} = {left} dollars are still there.
= {left $}

For every lawn that {p} mows, the neighbors pay {pay $}. This [month|summer] {p.he} mows {n} lawns
  and also earns {tip $} by feeding a cat. Petrol for the mower costs {s $}. What is {p.his} profit?
> Profit is everything that comes in without everything that goes out.
- Lawns: {n} x {pay} = {wage} dollars.
- Lawns and cat: {wage} + {tip} = {sum} dollars.
- {p}'s profit without the petrol money: {sum} - {s} = {left} dollars.
= {left $}

{p} teaches {q} to play the [piano|flute|violin]. After {n} lessons at {pay $} each, {q} pays for
  all of them and adds {tip $} for the notes. {p} then buys strings for {s $}. What is left of the
  money?
> The fee for the lessons and the notes is what {p} can spend from.
- {q}'s lessons cost {n} x {pay} = {wage} dollars.
- Paying for the notes too, {q} hands over {wage} + {tip} = {sum} dollars.
- {p} buys strings and keeps {sum} - {s} = {left} dollars.
= {left $}
""")


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
    s = rng.randint(2, min(30, wage + tip - 2))
    left = wage + tip - s
    return tell(
        rng, "earnings", EARNINGS, left,
        n=n, pay=pay, tip=tip, s=s, wage=wage, sum=wage + tip, left=left,
    )  # fmt: skip


STRUCTURES = {
    "coins": coins,
    "savings": savings,
    "earnings": earnings,
}

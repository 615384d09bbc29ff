import operator
import random
import re
from collections import defaultdict

import pytest

from jacobi_forcing.problems import math
from jacobi_forcing.problems.math.words import PEOPLE, noun

EQUATION = re.compile(r"(\d+) ([-+x/]) (\d+) = (\d+)")
OPERATIONS = {"+": operator.add, "-": operator.sub, "x": operator.mul, "/": operator.truediv}
NAMES = {person.name for person in PEOPLE}


def draw(number, seed=0):
    rng = random.Random(seed)
    return [math.sample(rng) for _ in range(number)]


def draw_from(structure, number, seed=0):
    rng = random.Random(f"{structure}/{seed}")
    return [math.STRUCTURES[structure](rng) for _ in range(number)]


@pytest.fixture(scope="module")
def problems():
    return draw(5000)


def is_easy(left, sign, right, result):
    if sign == "x":
        table = max(left, right) <= 12 or min(left, right) <= 5 or 10 in (left, right)
        return table and result < 200
    if sign == "/":
        table = max(right, result) <= 12 or min(right, result) <= 5 or 10 in (right, result)
        return table and left < 200
    return max(left, right, result) <= 200


def test_every_structure_is_drawn(problems):
    assert len(math.STRUCTURES) >= 24
    assert {problem.structure for problem in problems} == set(math.STRUCTURES)
    assert {problem.kind for problem in problems} == {"math"}


def test_the_same_seed_gives_the_same_problems():
    assert draw(300, seed=7) == draw(300, seed=7)
    assert draw(300, seed=7) != draw(300, seed=8)


def test_reference_answers_are_accepted(problems):
    for problem in problems:
        assert math.check(problem, problem.answer), problem


def test_other_numbers_are_refused(problems):
    for problem in problems:
        right = int(problem.check["answer"])
        for wrong in (right + 1, right - 1, right * 10, f"1{right}"):
            assert not math.check(problem, f"{problem.answer}\nAnswer: {wrong}"), problem
        assert not math.check(problem, problem.answer.rpartition("Answer:")[0]), problem


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Answer: 42", "42"),
        ("3 + 4 = 7\nAnswer: $7", "7"),
        ("Answer: 12 km\n", "12"),
        ("Answer: 1\nNo, wait.\nAnswer: 2.", "2"),
        ("Answer: 1,200", "1200"),
        ("Answer: 1\nAnswer: none", None),
        ("The answer is 5", None),
        ("Answer: -$3.50", "-3.50"),
        ("Answer: $-3.50 a day", "-3.50"),
        ("Answer: \u22123", "-3"),
        ("Answer: .5", ".5"),
        ("Answer: 7. Done", "7"),
        ("Answer: 18 - that is all", "18"),
        ("Answer: 18 (6 a day)", "18"),
        ("Answer: 18-year-old", "18"),
        ("Answer: 18%", "18"),
        *[(f"Answer: {x}", None) for x in ("10^100", "10^{100}", "1/2", "3 1/2", "2e3", "3!")],
        *[(f"Answer: {x}", None) for x in ("2 * 3", "2\u00d710^3", r"2 \times 3", "1,5", "1.2.3")],
        *[(f"Answer: {x}", None) for x in ("2**3", "2 + 3", "5-3", "12:30", "1,2345", "--3")],
        ("Answer: 2(3)", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_extract_answer_reads_what_follows_the_last_marker(text, number):
    assert math.extract_answer(text) == number


def test_every_equation_is_true_and_easy(problems):
    for problem in problems:
        equations = EQUATION.findall(problem.answer)
        assert 2 <= len(equations) <= 4, problem
        assert problem.answer.count("=") == len(equations), problem
        for left, sign, right, result in equations:
            numbers = int(left), int(right), int(result)
            assert OPERATIONS[sign](*numbers[:2]) == numbers[2], problem
            assert is_easy(numbers[0], sign, numbers[1], numbers[2]), problem


def test_the_answer_was_worked_out(problems):
    for problem in problems:
        *_, last = problem.answer.splitlines()
        assert last.startswith("Answer: ")
        assert re.search(rf"\b{problem.check['answer']}\b", problem.answer.removesuffix(last))


def test_lengths(problems):
    for problem in problems:
        assert 180 <= len(problem.answer) <= 700, problem
        assert 20 <= len(problem.prompt.split()) <= 75, problem


def test_text_is_clean(problems):
    for problem in problems:
        for text in (problem.prompt, problem.answer):
            assert not re.search(r"  | [.,?!]|[{}\[\]|#]|[.,?!] ?[.,?]|\$\$| \n", text), text
            assert not re.search(r"(?:^|[.?!] )[a-z]", text), text
            assert text.isascii()
        assert problem.prompt.endswith("\n")
        assert problem.prompt.count("\n") == 1
        assert problem.answer == problem.answer.strip()


def test_articles_fit(problems):
    for problem in problems:
        text = f"{problem.prompt} {problem.answer}"
        assert not re.search(r"\b[Aa] (?:[aeio]|u[^ks]|8|11\b|18\b)", text), text
        assert not re.search(r"\b[Aa]n (?:[^aeiouh8]|ukulele)", text), text
        assert not re.search(r"(?<![\d,])\b1 [a-z]+s\b(?! left)", text.replace("1 x", "")), text


def test_answers_speak_only_of_people_in_the_prompt(problems):
    word = re.compile(r"[A-Z][a-z]+")
    for problem in problems:
        told = NAMES.intersection(word.findall(problem.prompt))
        assert NAMES.intersection(word.findall(problem.answer)) <= told, problem


def test_no_answer_says_the_same_twice(problems):
    for problem in problems:
        sentences = [re.sub(r"\d+", "0", line) for line in re.split(r"[.?!] |\n", problem.answer)]
        steps = [sentence for sentence in sentences if len(sentence) > 8]
        assert len(steps) == len(set(steps)), problem


def test_prompts_hardly_ever_repeat(problems):
    assert len({problem.prompt for problem in problems}) >= 4990


def test_one_prompt_belongs_to_one_problem(problems):
    instances = defaultdict(set)
    for problem in problems:
        instances[problem.prompt].add((problem.instance, problem.answer))
        assert isinstance(hash(problem.instance), int)
    assert all(len(found) == 1 for found in instances.values())


def test_instances_know_neither_names_nor_wording(problems):
    for problem in problems:
        structure, *parts = problem.instance
        assert structure == problem.structure
        assert not NAMES.intersection(parts)
        assert sum(isinstance(part, int) for part in parts) >= 2


@pytest.mark.parametrize("structure", math.STRUCTURES)
def test_structures_are_wide(structure):
    problems = draw_from(structure, 6000)
    assert len({problem.instance for problem in problems}) >= 2000
    openings = {tuple(problem.prompt.split()[:3]) for problem in problems[:200]}
    assert len(openings) >= 8


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("berry", "berries"),
        ("toy", "toys"),
        ("peach", "peaches"),
        ("box", "boxes"),
        ("paintbrush", "paintbrushes"),
        ("tomato plant", "tomato plants"),
        ("cup of milk", "cups of milk"),
        ("pair of gloves", "pairs of gloves"),
        ("sheep", "sheep"),
    ],
)
def test_plurals(one, many):
    assert noun(one).many == many


def test_there_are_many_names():
    assert len(NAMES) == len(PEOPLE) >= 150

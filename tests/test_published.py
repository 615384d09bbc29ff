"""The published sets: their own solutions score 100 %, and what is no solution scores 0."""

import json

import pytest
from published import all_questions, asked_questions, open_sandbox

from jacobi_forcing.problems.published import SETS
from jacobi_forcing.problems.published.mbpp import Mbpp

COUNTS = {"humaneval": 164, "mbpp": 500, "gsm8k": 1319, "math500": 500}


@pytest.fixture(scope="module")
def sandbox():
    return open_sandbox()


def failures(sandbox, name, style, answers):
    """Run the programs of (question, text) pairs; list those that do not pass."""
    programs = [SETS[name].program(question, text, style) for question, text in answers]
    outcomes = sandbox.run(programs)
    return [
        (question.id, outcome.reason)
        for (question, _), outcome in zip(answers, outcomes, strict=True)
        if not outcome.passed
    ]


def replies(question):
    """The published code as a model would give it in a chat."""
    head = question.text if question.id.startswith("HumanEval") else ""
    whole = head + question.reference
    yield f"Here is the function:\n\n```python\n{whole}\n```\n\nIt goes through the list once."
    yield f"<think>\n```python\nreturn 0\n```\n</think>\n\n```\n{whole}".replace("\n", "\r\n")
    yield f"First a draft:\n```py\nimport re\n```\nThen:\n```Python\n{whole}```\n```\n$ python\n```"
    yield f"Sure!\n\n{whole}\n\nThis is it."


def completions(question):
    """The published code as a base model would go on with the prompt."""
    goes_on = (
        "\n\ndef unfinished(x" if question.id.startswith("HumanEval") else "\n[DONE]\n\nYou are"
    )
    yield question.reference + goes_on


WRONG = (
    "",
    "I cannot help with that.",
    "```python\ndef {name}(*args, **kwargs):\n    pass\n```",
    "```python\ndef {name}(*args, **kwargs):\n    return None\n```",
    "```python\nprint('passed')\n```",
    "```python\nimport sys\nsys.exit(0)\n```",
    "```python\ndef {name}(*args):\n    import os\n    os._exit(0)\n```",
    "```python\ndef {name}(*args):\n    raise SystemExit(0)\n```",
)


def wrong(question):
    return (text.replace("{name}", question.fields["entry_point"]) for text in WRONG)


def in_turn(asked, texts):
    """One of a question's texts each, the first, second... in turn."""
    return [(q, list(texts(q))[n % len(list(texts(q)))]) for n, q in enumerate(asked)]


def all_of(asked, texts):
    return [(question, text) for question in asked for text in texts(question)]


def test_humaneval_solutions_pass(sandbox):
    asked = all_questions("humaneval")
    assert len(asked) == 164
    assert failures(sandbox, "humaneval", "completion", all_of(asked[::2], completions)) == []
    assert failures(sandbox, "humaneval", "chat", in_turn(asked[1::2], replies)) == []


def test_one_in_ten_mbpp_solutions_pass(sandbox):
    asked = all_questions("mbpp")[6::10]  # with task 367, which needs its setup after the code
    assert len(asked) == 97
    assert failures(sandbox, "mbpp", "completion", all_of(asked[::2], completions)) == []
    assert failures(sandbox, "mbpp", "chat", in_turn(asked[1::2], replies)) == []


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_no_wrong_answer_passes(sandbox, name):
    answers = in_turn(all_questions(name)[::3][:97], wrong)
    assert len(failures(sandbox, name, "chat", answers)) == len(answers) > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_all_solutions_pass_and_no_wrong_answers(sandbox, name):
    asked = all_questions(name)
    assert len(asked) == {"humaneval": 164, "mbpp": 974}[name]
    assert failures(sandbox, name, "completion", all_of(asked, completions)) == []
    assert failures(sandbox, name, "chat", in_turn(asked, replies)) == []
    assert len(failures(sandbox, name, "chat", in_turn(asked, wrong))) == len(asked)


WORKED = (
    ("completion", "{solution}\n\nQuestion: And 7 more?\n#### 7"),
    ("completion", "It is {gold} in the end.\nThe answer is ${gold}.00."),
    ("chat", "We get \\[{gold}\\].\n\n**Answer:** $\\boxed{{{gold}}}$"),
    ("chat", "<think>Perhaps \\boxed{{0.5}}?</think>So \\boxed{{1}}, no: \\boxed{{{gold}}}."),
)


@pytest.mark.parametrize(("style", "form"), WORKED)
def test_gsm8k_answers_are_right(style, form):
    asked = all_questions("gsm8k")
    answers = [(q, form.format(solution=q.reference, gold=q.fields["answer"])) for q in asked]
    assert sum(SETS["gsm8k"].solved(answers, style)) == 1319


def test_no_wrong_answer_solves_gsm8k():
    asked = all_questions("gsm8k")
    for wrong_answer in (
        lambda q, other: f"\\boxed{{{int(q.fields['answer']) + 1}}}",
        lambda q, other: f"The answer is {-int(q.fields['answer']) or 1}.",
        lambda q, other: f"#### {q.fields['answer']}0" if int(q.fields["answer"]) else "1",
        lambda q, other: f"#### {q.fields['answer']}.5",
        lambda q, other: f"\\boxed{{{q.fields['answer']}",  # cut off
        lambda q, other: "",
        lambda q, other: q.text,
        lambda q, other: other.reference if differ(q, other) else "",
    ):
        pairs = zip(asked, asked[7:] + asked[:7], strict=True)
        answers = [(question, wrong_answer(question, other)) for question, other in pairs]
        assert sum(SETS["gsm8k"].solved(answers, "chat")) == 0


def differ(question, other):
    return question.fields["answer"].split("=")[-1] != other.fields["answer"].split("=")[-1]


def test_math500_answers_are_right():
    asked = all_questions("math500")
    for style, form in (
        ("chat", "So $x=2$ and\n\\[\\boxed{{{gold}}}\\]\nas was to be found."),
        ("chat", "{solution}"),
        ("chat", "<think>\\boxed{{7}}</think>We find \\fbox{{{gold}}}."),
        (
            "completion",
            "The final answer is $\\boxed{{{gold}}}$.\n\nProblem:\nWhat is \\boxed{{1}}?",
        ),
        ("completion", "Final Answer: The final answer is ${gold}$. I hope it is correct."),
    ):
        golds = [q.fields["answer"].replace("\\$", "") for q in asked]  # no dollar within $...$
        pairs = zip(asked, golds, strict=True)
        answers = [(q, form.format(gold=gold, solution=q.reference)) for q, gold in pairs]
        assert sum(SETS["math500"].solved(answers, style)) == 500


def test_no_wrong_answer_solves_math500():
    asked = all_questions("math500")
    pairs = list(zip(asked, asked[1:] + asked[:1], strict=True))
    by_others = [
        (q, f"\\boxed{{{other.fields['answer']}}}") for q, other in pairs if differ(q, other)
    ]
    assert len(by_others) > 480
    empty = [(q, "") for q in asked]
    restated = [(q, f"Let us see. {q.text}") for q in asked]
    cut_off = [(q, f"\\boxed{{{q.fields['answer']}") for q in asked]
    numbers = [q for q in asked if q.fields["answer"].isdigit()]
    above = [(q, f"\\boxed{{{int(q.fields['answer']) + 1}}}") for q in numbers]
    negated = [
        (q, f"\\boxed{{-{q.fields['answer']}}}") for q in numbers if q.fields["answer"] != "0"
    ]
    answers = [*by_others, *empty, *restated, *cut_off, *above, *negated]
    found = SETS["math500"].solved(answers, "chat")
    assert [a for a, solved in zip(answers, found, strict=True) if solved] == []


@pytest.mark.parametrize("name", SETS)
def test_prompts_hold_the_question_and_no_test_question_as_an_example(name):
    chosen = SETS[name]
    asked = asked_questions(name)
    assert len(asked) == COUNTS[name]
    assert chosen.stops("chat") == ()
    for question in asked:
        prompt = chosen.prompt(question, "completion")
        assert question.text in prompt
        (message,) = chosen.prompt(question, "chat")
        assert message["role"] == "user"
        assert question.text.strip() in message["content"]
        assert not any(stop in f"\n{question.reference}" for stop in chosen.stops("completion"))
    examples = chosen.prompt(asked[0], "completion").replace(asked[0].text, "")
    assert not any(question.text in examples for question in asked[1:])
    assert examples.count("[BEGIN]") == (4 if name == "mbpp" else 0)
    assert json.loads(json.dumps(asked[0].fields)) == asked[0].fields


def test_every_text_of_a_published_example_is_ours_or_of_the_prompt_split():
    first = all_questions("mbpp")[0]
    prompt = Mbpp().prompt(first, "completion")
    for number in (2, 3, 4):
        assert all_questions("mbpp")[number - 1].text in prompt

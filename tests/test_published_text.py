"""Answers are found in whatever a model writes around them, and the same mathematics is equal."""

import threading
import time
from textwrap import indent

import pytest

from jacobi_forcing.problems.published import SETS, Question
from jacobi_forcing.problems.published.code_text import fitting, join_program
from jacobi_forcing.problems.published.equivalence import are_equal
from jacobi_forcing.problems.published.math_text import final_answer

HEAD = 'def double(x):\n    """Double it."""\n'
WHOLE = "def double(x):\n    y = x\n    return y + x\n"
BODY = "    y = x\n    return y + x\n"


@pytest.mark.parametrize(
    "text",
    [
        f"```python\n{WHOLE}```",
        f"```\n{WHOLE}\n```\n",
        f"```py3 title=x\n{WHOLE}```",
        f"Sure:```python\n{WHOLE}```",
        f"A fence that is never closed:\n```python\n{WHOLE}",
        f"1. In a list:\n   ```python\n{indent(WHOLE, '   ')}   ```",
        f"Not this:\n```\nx = 1\n```\nbut this:\n```\n{WHOLE}```",
        f"First:\n```\nx = 1\n```\nand then, without an end:\n```\n{WHOLE}",
        f"```python\n{BODY}",
        f"```python\n{WHOLE}```\nUse:\n```python\nprint(double(2))\n```",
        f"```python\n{HEAD}    return 3\n```\nNo, that is wrong:\n```python\n{WHOLE}```",
        f"<think>```python\n{HEAD}    return 3\n```</think>```python\n{WHOLE}```",
        f"```python\n{WHOLE}```".replace("\n", "\r\n"),
        f"```python\n{WHOLE}```".replace("    ", "\t"),
        WHOLE,
        f"Here you are:\n\nimport math\n\n{WHOLE}\nIt doubles x.",
        f"N = 1\nwhile N < 3:\n    N += 1\n\n{WHOLE}\n\nThat is `double`.\nAnything else?",
        f"```python\nfrom __future__ import annotations\n{WHOLE}```",
        f"```python\nclass Box:\n    def double(self):\n        return 5\n\n{WHOLE}```",
        f"```python\n{BODY}```",
        f"```python\n{BODY.lstrip()}```",
        f"```python\n{BODY.replace('    ', '')}```",
        f"Here is ```f```:\n```python\n{WHOLE}```",
        f"Here is ```f```:\n\n```python\n{WHOLE}```\nIt calls ```double(2)```, which is 4.",
        f"Use ```double(2)``` or ```\n```\n{WHOLE}\n```",
        f"~~~python\n{WHOLE}~~~",
        f"~~~~ py `x`\n{WHOLE}# The shorter one below ends nothing.\n'''\n~~~\n'''\n~~~~\n",
        f"````python\n# ```\n{WHOLE}# ```\n````",
        f"````markdown\n```python\n{HEAD}    return 3\n```\n````\nNo:\n```python\n{WHOLE}```",
        f"```python\ntext = '```'\n{WHOLE}```",
        f"   ```python\n{indent(WHOLE, '   ')}   ```  \nDone.",
        f"```python\n{WHOLE}   ````\nDone: ```x```",
        f"- In a list:\n\n  - of lists:\n    ~~~py\n{indent(WHOLE, '    ')}    ~~~\n  Done.",
        f"10. In a list:\n\n    ```\n{indent(WHOLE, '    ')}    ```",
        f"1. Half in a list:\n   ```python\n{WHOLE}   ```\n2. Done.",
        f"> ```python\n{indent(WHOLE, '> ')}> ```",
        f"<answer>\n```python\n{WHOLE}```\n</answer>",
        f"```python\n{WHOLE.strip()}```\nDone.",
        f"```python\n{WHOLE.strip()}```",
        f"```\n\n```\nOh.\n```\n{WHOLE}",
        f"Step 1:\n    ```python\n{WHOLE}    ```",
        BODY.replace("    ", "\t"),
        BODY,
    ],
)
def test_the_function_is_found_in_a_reply(text):
    fields = {"entry_point": "double", "test": "def check(f):\n    assert f(2) == 4"}
    question = Question("HumanEval/x", "code", HEAD, BODY, fields)
    program = SETS["humaneval"].program(question, text, "chat")
    exec(compile(program, "<program>", "exec"), {"__name__": "answer"})


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        BODY[1:],
        BODY.lstrip(),
        f"{BODY}\ndef other(:\n",
        f"{BODY}\n# next\nx = (",
        BODY + "\n```\n",
    ],
)
def test_a_completion_ends_with_the_function(text):
    fields = {"entry_point": "double", "test": "def check(f):\n    assert f(2) == 4"}
    question = Question("HumanEval/x", "code", HEAD, BODY, fields)
    program = SETS["humaneval"].program(question, text, "completion")
    exec(compile(program, "<program>", "exec"), {"__name__": "answer"})


def test_what_fits_nowhere_stays_as_it_is():
    assert fitting(HEAD, "I do not know.") == "I do not know."
    assert fitting(HEAD, "") == ""
    assert join_program("a = 1", "b = 2") == "a = 1\nb = 2\n"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{5} and then \boxed{6}", "6"),
        (r"$$\boxed{\frac{1}{2}}$$", r"\frac{1}{2}"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{x = \fbox{7}}", "7"),
        (r"\fbox{8}", "8"),
        (r"\boxed 5 is it", "5"),
        (r"$\boxed 3.5$", "3.5"),
        (r"\boxed\frac12", r"\frac12"),
        ("boxed{9}", "9"),
        ("boxed 5", "5"),
        ("I have boxed the answer: 4.", "4"),
        (r"\boxed {12}", "12"),
        ("\\boxed{\n  12\n}", "12"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{\text{a } b}", r"\text{a } b"),
        (r"\boxed{5", ""),
        (r"\boxed{4} or \boxed{\frac{1}{2}", ""),
        (r"<think>\boxed{1}</think>\boxed{2}", "2"),
        (r"\boxed{1}</think>The answer is 2.", "2"),
        (r"<think>\boxed{1}", ""),
        (r"\boxed{3}<think>hm", "3"),
        ("The final answer is $x^2 + 1$. I hope it is correct.", "x^2 + 1"),
        ("The answer is: 3.5", "3.5"),
        ("**Answer:** \\(12\\)", "12"),
        ("The answer is 4. No, the answer is 5. Done.", "5"),
        ("Final answer: **1/2**\nThank you", "1/2**"),
        ("Hence $x = 6$, which is $x^2 = 36$.", "36"),
        ("Hence $a$ is $\\$5$", r"\$5"),
        ("We look at $x^2 + 1$.", ""),
        ("We find $513^2 - 487^2$.", ""),
        ("There is none.", ""),
        ("", ""),
    ],
)
def test_the_final_answer_is_found(text, answer):
    assert final_answer(text) == answer
    assert final_answer(text.replace("\n", "\r\n")) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5 + 5 = 10\n#### 10", "10"),
        ("#### 1,234,567", "1234567"),
        ("#### $18.00", "18.00"),
        ("#### -3", "-3"),
        ("#### 18 eggs a day\n", "18"),
        ("#### 5\nor rather\n#### 6", "6"),
        (r"so \boxed{18}", "18"),
        (r"\boxed{\$18}", "18"),
        (r"\boxed{-\$18.50}", "-18.50"),
        (r"\boxed{18\%}", "18"),
        (r"\boxed{18 \text{ dollars for 3 days}}", "18"),
        (r"\boxed{x = 3 \cdot 6 = 18}", "18"),
        (r"\boxed{1{,}800}", "1800"),
        (r"\boxed{1\,800}", "1800"),
        (r"\boxed{\text{none}} of the 7", ""),
        ("He has 7.\n#### none", ""),
        ("#### Step 3: the rest\nThat is 18.", "18"),
        ("#### Step 3: the rest\nThat is \\boxed{18}.", "18"),
        ("\\boxed{18}\n#### Check\n3 * 6 is right", "18"),
        ("#### 7\nNo: \\boxed{18}", "18"),
        ("#### \\boxed{18}", "18"),
        ("#### **18**", "18"),
        ("#### 3 * 6 => 18 eggs", "18"),
        ("#### 3*6", "18"),
        ("#### 18 dollars/day", "18"),
        ("#### 18-year-old", "18"),
        ("#### $1,018.00.", "1018.00"),
        ("#### USD 18", "18"),
        (r"\boxed{1\ 000}", "1000"),
        (r"\boxed{1\,234\,567}", "1234567"),
        (r"\boxed{1~000.50}", "1000.50"),
        (r"\boxed{12 345}", "12345"),
        (r"\boxed{\frac{36}{2}}", "18"),
        (r"\boxed{\dfrac{36}{2}\text{ eggs}}", "18"),
        (r"\boxed{-\frac{36}{2}}", ""),
        (r"\boxed{\frac{-36}{2}}", "-18"),
        (r"\boxed{36/2}", "18"),
        (r"\boxed{2 \times 9}", "18"),
        (r"\boxed{3 \cdot 2 \cdot 3}", "18"),
        (r"\boxed{\$2 \times 9}", "18"),
        (r"\boxed{1.5 \times 12}", "18"),
        (r"\boxed{18^\circ}", "18"),
        (r"\boxed{18 \text{ cm}^2}", "18"),
        (r"\boxed{18\text{ cm}^{2}}", "18"),
        (r"\boxed{(18)}", "18"),
        (r"\boxed{\textbf{18}}", "18"),
        (r"\boxed{\text{Lena: } 18}", "18"),
        (r"\boxed{\approx 18}", "18"),
        (r"\boxed{18 \quad}", "18"),
        (r"\boxed{+18}", "18"),
        (r"\boxed{18 \text{ (6 per day)}}", "18"),
        (r"\boxed{18", ""),
        ("The answer is 18.", "18"),
        ("The answer is $18.50.", "18.50"),
        ("The final answer is: **1,018** dollars.", "1018"),
        ("The answer is 3 * 6 = 18 apples.", "18"),
        ("He has 5 and gets 13, which makes 18.", "18"),
        ("That is 18/3 of it, so 6%.", "6"),
        ("20 - 2 = 18", "18"),
        ("It falls to \u22125.", "-5"),
        ("It is 16-3", "3"),
        ("It is .5", ".5"),
        ("<think>It is 7.</think>It is 8.", "8"),
        ("<think>It is 7.", ""),
        ("None.", ""),
    ],
)
def test_the_number_is_found(text, answer):
    question = Question("gsm8k/test/0", "math", "How many?", "", {"answer": "18"})
    assert SETS["gsm8k"].answer_of(question, text, "chat") == answer


@pytest.mark.parametrize(
    "text", ["\\boxed{\\frac{18}{7}}", "#### 18/7", "18 7", "0.18", "180", "1 8"]
)
def test_parts_of_a_number_are_not_the_number(text):
    question = Question("gsm8k/test/0", "math", "How many?", "", {"answer": "18"})
    assert SETS["gsm8k"].solved([(question, text)], "chat") == [False]


PARTS = [
    *(r"\frac{1}{2}", r"\dfrac12", r"\frac 1 2", "1/2", "2/0", "7/2", r"1\frac{1}{2}", "2 1/2"),
    *("2^3", "3^2", "x^2", "2^{10}", "10^2", "2**3", "3**2", "2!", "3!", r"\sqrt{2}", r"2\sqrt{2}"),
    *(
        r"\sqrt 2",
        "√2",
        "2π",
        r"2\pi",
        r"2 \pm 1",
        "2 + 1",
        "1 + 2",
        "3-2",
        "2-3",
        "x + 2",
        "x - 2",
    ),
    *("x > 2", r"x \le 2", "2, 3", "2 or 3", r"2 \text{ and } 3", "2:30", "1:2", "2(3)", "(1)(2)"),
    *(r"1 \times 2 + 3", r"2 \times 0.3", r"2 \times 10^3", "2e3", "2_8", "1.2.3", "1 2", "- 2"),
    *(
        r"\binom{2}{1}",
        "|2 - 4|",
        r"2 \div 1",
        r"\frac{2}{1/2}",
        r"\frac{36}{2}/9",
        r"-\frac{4}{2}",
    ),
    *("none", r"\text{two}", "", "9" * 9999 + "/3", "2/" + "9" * 9999),
]


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_no_part_of_a_final_answer_stands_for_it(style):
    def solved(text, gold):
        question = Question("gsm8k/test/0", "math", "How many?", "", {"answer": gold})
        return SETS["gsm8k"].solved([(question, text)], style) == [True]

    for part in PARTS:
        for form in ("He has 2.\n\\boxed{PART}", "He has 2.\n#### PART", "#### PART\nThat is it."):
            for gold in ("1", "2", "3", "4", "7", "8", "9", "10", "36"):
                text = form.replace("PART", part)
                assert not solved(text, gold), (text[:50], gold)
    assert solved("He has 7.\n\\boxed{2}", "2")
    assert solved("He has 7.\n#### 2\nThat is it.", "2")


@pytest.mark.parametrize("text", ["It is 1/2", r"It is $\frac{1}{2}$", r"\sqrt{2}", "3^2", "x^{2}"])
def test_a_last_number_that_is_part_of_another_is_none(text):
    question = Question("gsm8k/test/0", "math", "How many?", "", {"answer": "2"})
    assert SETS["gsm8k"].answer_of(question, text, "chat") == ""
    assert SETS["gsm8k"].answer_of(question, f"The answer is {text}.", "chat") == ""


SAME = [
    *[("1/2", x) for x in (r"\frac12", r"\frac{1}{2}", r"\dfrac{1}{2}", r"\tfrac 12", "0.5", ".5")],
    *[(r"1\frac{4}{5}", x) for x in (r"1 \frac45", r"\frac{9}{5}", "1.8", "9/5")],
    *[("(-1,2]", x) for x in ("(-1, 2]", r"\left(-1,2\right]", r"-1 < x \le 2", r"x \in (-1,2]")],
    *[(r"x \in [-2,7]", x) for x in ("[-2,7]", r"-2 \le x \le 7")],
    *[(r"(2,\infty)", x) for x in ("x > 2", r"(2, +\infty)", "(2, ∞)")],
    *[(r"\{1,2\}", x) for x in (r"\{2, 1\}", "1, 2", "2,1")],
    *[("1,-2", x) for x in ("-2, 1", "x = 1, -2", r"1 \text{ and } -2")],
    *[(r"\left( 3, \frac{\pi}{2} \right)", x) for x in (r"(3, \pi/2)", "(3, π/2)")],
    (r"(0,9) \cup (9,36)", r"(9,36)\cup(0,9)"),
    *[(r"\begin{pmatrix} -1/3 \\ 2 \end{pmatrix}", rf"\begin{{{x}}}-\frac13\\2\end{{{x}}}")
      for x in ("pmatrix", "bmatrix")],
    *[(r"5.4 \text{ cents}", x) for x in ("5.4", r"5.40\text{ cents}", "5.4 cents")],
    *[(r"864 \mbox{ inches}^2", x) for x in ("864", r"864 \text{ in}^2")],
    *[(r"90^\circ", x) for x in ("90", r"90^{\circ}", r"90 \text{ degrees}", "90°")],
    *[(r"10\%", x) for x in ("10", r"10\%", "10%")],
    *[(r"\$18.90", x) for x in ("18.90", "18.9", r"\$18.90", "$18.90")],
    *[("58,500", x) for x in ("58500", "58{,}500", r"58,\!500", "58500.0")],
    *[("1000", x) for x in ("10^{3}", "10^3", r"10 \cdot 100", "1{,}000")],
    *[(r"\sqrt{12}", x) for x in (r"2\sqrt{3}", r"2 \sqrt 3", r"\frac{6}{\sqrt3}")],
    *[(r"11\sqrt2", x) for x in (r"11 \sqrt{2}", r"\sqrt{242}")],
    *[("5", x) for x in ("x=5", "$5$", r"\(5\)", "**5**", "5.", "5.0", "+5", r"\boxed{5}", r"5\\")],
    *[("y = 2x + 3", x) for x in ("2x+3", "y=3+2x")],
    *[("5x - 7y + 4 = 0", x) for x in ("-5x + 7y - 4 = 0", "5x + 4 = 7y")],
    *[("p - q", x) for x in ("-q + p", "p-q")],
    *[(r"3 \pm 2 \sqrt{2}", x) for x in (r"3+2\sqrt2, 3-2\sqrt2", r"3\pm\sqrt8")],
    *[(r"\text{(C)}", x) for x in ("C", "(C)", r"\textbf{(C)}", r"\mathrm{C}")],
    *[(r"\text{Evelyn}", x) for x in ("Evelyn", r"\textbf{Evelyn}", r"\mathrm{Evelyn}")],
    *[("52_8", x) for x in ("52_{8}", "52")],
    *[("6+9i", x) for x in ("9i+6", "6 + 9 i")],
    (r"\cot x", r"\frac{\cos x}{\sin x}"),
    ("(a+5)(b+2)", "ab + 2a + 5b + 10"),
    *[(r"\frac{1}{2^{99}}", x) for x in ("2^{-99}", r"\frac{2}{2^{100}}")],
    *[("10^{100}", x) for x in ("1" + "0" * 100, r"10 \cdot 10^{99}")],
    *[(r"\frac{1}{200!}", x) for x in (r"\frac{1}{200 \cdot 199!}", r"\frac{201}{201!}")],
    *[("e^{-1000}", x) for x in (r"\frac{1}{e^{1000}}", r"e^{-999} e^{-1}")],
    *[(r"12.5\%", x) for x in ("0.125", "12.5", r"12.50\%", "1/8")],
    *[("0.3", x) for x in ("0.1+0.2", r"\frac{3}{10}", r"30\%")],
    *[(r"x \in [0.5, 1]", x) for x in ("[1/2, 1]", r"\frac12 \le x \le 1.0")],
    *[("0.5x + 1", x) for x in (r"\frac{x}{2} + 1", "1 + .5x")],
    (r"\begin{pmatrix} 0.5 \\ 1 \end{pmatrix}", r"\begin{pmatrix} 1/2 \\ 1 \end{pmatrix}"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"), (r"\cos\frac{\pi}{7}", r"-\cos\frac{6\pi}{7}"),
]  # fmt: skip

OTHER = [
    *[("(-1,2]", x) for x in ("[-1,2)", "(-1,2)", "[-1,2]", "(-1,3]", "(2,-1]")],
    *[(r"\{1,2\}", x) for x in (r"\{1,3\}", r"\{1\}", r"\{1,2,3\}")],
    *[("1,-2", x) for x in ("1", "-1,2", "1,-2,3")],
    *[("(8,-2)", x) for x in ("(-2,8)", "8", "(8,2)")],
    *[("5", x) for x in ("-5", "6", "", "5x", "55", "0.5", "5^2", r"\text{five or six}", "5 or 6")],
    *[("2", x) for x in ("1,2", r"2\pm1", r"2 \text{ or } 3", "[2,3]", "2, 3")],
    *[("12", x) for x in ("1,2", "1 2", "(1,2)")],
    *[("1/3", x) for x in ("0.33", "3", r"\frac{1}{4}", "1")],
    *[(".0000672", x) for x in (".000067", "0", "6.72")],
    *[("p - q", x) for x in ("q - p", "p + q", "p")],
    *[("52_8", x) for x in ("52_9", "25_8")],
    *[(r"\text{east}", x) for x in (r"\text{west}", "e", r"\text{north-east}")],
    *[(r"\text{(C)}", x) for x in ("B", r"\text{(B)}", "(A) and (C)")],
    *[("x=5", x) for x in ("6", "y=5", "x=6")],
    *[(r"\sqrt{5}", x) for x in ("5", "2.236", r"-\sqrt5")],
    *[(r"\pi", x) for x in ("3.14", "180")],
    *[(r"(2,\infty)", x) for x in (r"[2,\infty)", r"x \ge 2", "2")],
    *[(r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", rf"\begin{{pmatrix}} {x} \end{{pmatrix}}")
      for x in (r"2 \\ 1", "1 & 2", r"1 \\ 2 \\ 0")],
    ("6+9i", "6-9i"), (r"1 \pm \sqrt{19}", r"1+\sqrt{19}"), ("3, 5, 7", "357"),
    (r"\cot x", r"\tan x"),
    *[(r"\frac{1}{2^{99}}", x) for x in (r"\frac{1}{2^{98}}", "0", r"\frac{1}{2^{99}+1}")],
    *[("10^{100}", x) for x in ("10^{100}+1", "10^{101}", r"\sqrt{10^{200}+1}", r"\infty")],
    *[("0", x) for x in ("10^{-400}", "e^{-1000}", "0.1^{400}", r"\log(1+10^{-30})")],
    *[(r"\frac{1}{200!}", x) for x in (r"\frac{1}{201!}", "0")],
    *[("200!", x) for x in ("201!", "200!+1")], ("e^{-1000}", "e^{-1001}"),
    ("10^{30}+0.5", "10^{30}"), (r"\binom{300}{150}", r"\binom{300}{150}+1"),
    *[("1/3", x) for x in ("0.333333", "0.3333333333333333333")],
    *[(r"1\frac13", x) for x in ("1.333333", "1.3333333333333333333333")],
    *[(r"\sqrt{2}", x) for x in ("1.414214", "1.4142135623730950488")],
    (r"\pi", "3.14159265358979323846"), (r"\sqrt{2^{-200}}", r"\sqrt{2^{-202}}"),
    *[(r"12.5\%", x) for x in ("12.5000001", r"12.6\%", "1.25", "1250")],
    (r"0.0000001\%", r"0.0000002\%"), (r"10^{-20}\%", r"10^{-21}\%"),
    *[("(0,2^{-99})", x) for x in ("(0,2^{-98})", "(0,0)")], (r"\{2^{-99}\}", r"\{2^{-98}\}"),
    ("x=2^{-99}", "x=2^{-98}"), ("x > 10^{-30}", "x > 10^{-31}"),
    (r"x \in [0.5, 1]", "[0.5000001, 1]"), (r"2^{-99}x + 1", r"2^{-98}x + 1"),
    ("x + 1/3", "x + 0.3333333"), (r"1 + 2^{-100}i", r"1 + 2^{-99}i"),
    (r"\begin{pmatrix} 2^{-99} \\ 1 \end{pmatrix}", r"\begin{pmatrix} 2^{-98} \\ 1 \end{pmatrix}"),
]  # fmt: skip


@pytest.fixture
def _library():
    pytest.importorskip("math_verify", reason="needs the evaluate extra")


@pytest.mark.usefixtures("_library")
def test_the_same_mathematics_is_equal():
    found = are_equal(SAME)
    assert [pair for pair, equal in zip(SAME, found, strict=True) if not equal] == []


@pytest.mark.usefixtures("_library")
def test_other_mathematics_is_not():
    found = are_equal(OTHER)
    assert [pair for pair, equal in zip(OTHER, found, strict=True) if equal] == []


@pytest.mark.usefixtures("_library")
def test_nothing_hangs_or_breaks_the_rest_in_any_thread():
    hostile = [
        ("5", x)
        for x in (
            "9^{9^{9^{9}}}",
            "10^{-10^9}",
            "(" * 300 + "5",
            "{" * 50,
            r"\frac" * 100,
            "\\",
            "5" * 10**6,
        )
    ]
    hostile += [("5", "5" + sign * 300 + "x") for sign in (r"\;", r"\,", r"\ ", "\\", ".", r"\.")]
    found = []
    pairs = [("1/2", r"\frac36"), *hostile, ("1/2", r"\frac48")]
    started = time.monotonic()
    thread = threading.Thread(target=lambda: found.extend(are_equal(pairs)))
    thread.start()
    thread.join()
    assert found == [True, *[False] * len(hostile), True]
    assert time.monotonic() - started < 60

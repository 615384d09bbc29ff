"""What a model is asked, and who judges the answers: bundled problems, a file's, a published set's.

`read_problem_task` looks at all that needs no model, so that mistakes show before one is loaded.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from jacobi_forcing import problems
from jacobi_forcing.config import EvaluateConfig
from jacobi_forcing.data.prompts import encode
from jacobi_forcing.data.sources import read_file
from jacobi_forcing.errors import ConfigError, DataError
from jacobi_forcing.models import CausalLM
from jacobi_forcing.problems.problem import Problem
from jacobi_forcing.problems.published import SETS, CodeSet, Question, load
from jacobi_forcing.problems.published.reply_text import begins_thought
from jacobi_forcing.problems.scoring import check_answers
from jacobi_forcing.sandbox import Sandbox

_BUNDLED_SEED = 0
_BUNDLED_PER_KIND = 500
_END = 32  # tokens of a prompt that show whether a chat template opened a thought
_FROM_FILE = "file"  # the structure of problems that are not generated


class Item(NamedTuple):
    """One problem as a model is asked it."""

    id: str
    prompt: str  # as text, for readers
    prompt_ids: list[int]
    reference: str  # a good answer, for readers; empty where none is known
    check: str  # 16 hex digits of what decides; empty where nothing is to be solved


class Verdict(NamedTuple):
    """What an answer is worth, and why."""

    solved: bool | None  # None where nothing is to be solved
    why: str = ""


class Task(ABC):
    """Problems and their judge."""

    stop: tuple[str, ...] = ()  # texts that end an answer
    has_rival = True  # the original, if one is named, answers the problems too

    def key(self, item: Item) -> str:
        """Give what makes a problem the same one, however a model is asked it."""
        return json.dumps([item.id, item.prompt, item.reference, item.check])

    @abstractmethod
    def items(self, model: CausalLM, original: CausalLM | None) -> list[Item]:
        """Ask all problems in the model's own tokens, which are the original's too.

        Raises:
            DataError: A prompt is empty or does not fit into the model's context.
        """

    @abstractmethod
    def judge(self, answers: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Judge texts, each with its problem's place in the list."""

    @property
    def facts(self) -> dict[str, Any]:
        """Tell what a report should say about how it was asked and judged."""
        return {}

    def worth(self, records: Sequence[dict[str, Any]], name: str) -> dict[str, float]:
        """Say what all of a decoder's answers are worth together, beside their verdicts."""
        return {}


def read_problem_task(config: EvaluateConfig) -> Task:
    """Read the problems that `config.problems` names.

    Raises:
        DataError: No such set, or a broken file.
        ConfigError: Answers are code and running code was not allowed, or cannot be done safely.
    """
    name, _, file = config.problems.partition(":")
    if name not in SETS:
        return OwnTask(read_problems(config), config.problems)
    if isinstance(SETS[name], CodeSet):
        _allow_code(config)  # before anything is fetched
    questions = load(name, file or None)
    return PublishedTask(name, questions[: config.limit or None], config)


class OwnTask(Task):
    """Bundled problems, or those of a JSONL file."""

    def __init__(self, chosen: Sequence[Problem], source: str):
        self.chosen = chosen
        self.source = source

    def items(self, model: CausalLM, original: CausalLM | None) -> list[Item]:
        """Ask the prompts as they are."""
        found = []
        numbers = Counter()  # within a kind: a larger limit adds problems and renames none
        for problem in self.chosen:
            numbers[problem.kind] += 1
            is_own = problem.structure != _FROM_FILE
            where = self.source if is_own else problem.instance[0]
            ids = encode({"prompt": problem.prompt}, model.tokenizer, where, model.context_tokens)
            name = f"{problem.kind}/{numbers[problem.kind]}"
            if not is_own:
                name = f"line/{where.rpartition(':')[2]}"
            reference = problem.answer or str(problem.check.get("answer", ""))
            found.append(Item(name, problem.prompt, ids, reference, _digest(problem.check)))
        return found

    def judge(self, answers: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Compare numbers, run functions on their tests."""
        solved = check_answers([(self.chosen[number], text) for number, text in answers])
        return [Verdict(one) for one in solved]


class PublishedTask(Task):
    """A published benchmark."""

    max_new_tokens = 1024  # as in the paper's runs of HumanEval

    def __init__(self, name: str, questions: Sequence[Question], config: EvaluateConfig):
        self.set = SETS[name]
        self.questions = questions
        self.title = questions[0].edition or self.set.title
        self.texts = {question.id: _digest({"text": question.text}) for question in questions}
        self.style = config.style  # until a tokenizer is known, it may be "auto"
        self.thinking: set[int] = set()  # questions whose prompt ends within a thought
        self.sandbox = Sandbox(config.sandbox) if isinstance(self.set, CodeSet) else None

    def items(self, model: CausalLM, original: CausalLM | None) -> list[Item]:
        """Ask in the style that fits the model: as a chat where it has a chat template."""
        if self.style == "auto":
            self.style = "completion" if model.tokenizer.chat_template is None else "chat"
        self.stop = self.set.stops(self.style)
        found = []
        for question in self.questions:
            asked = self.set.prompt(question, self.style)
            field = "prompt" if isinstance(asked, str) else "messages"
            ids = encode({field: asked}, model.tokenizer, question.id, None)
            if len(ids) >= model.context_tokens:
                raise DataError(
                    f"{question.id}: asked as a {self.style}, its prompt has {len(ids)} tokens, "
                    f"but the context of {model.name} holds {model.context_tokens}, with the "
                    "answer. Take a model with a longer one, or another --style."
                )
            if self.style == "chat" and begins_thought(model.tokenizer.decode(ids[-_END:])):
                self.thinking.add(len(found))
            text = asked if isinstance(asked, str) else asked[-1]["content"]
            check = _digest(question.fields)
            found.append(Item(question.id, text, ids, question.reference, check))
        return found

    def key(self, item: Item) -> str:
        """Give its publishers' name, text and check: prompts differ with the style."""
        return json.dumps([self.title, item.id, self.texts[item.id], item.check])

    def judge(self, answers: Sequence[tuple[int, str]]) -> list[Verdict]:
        """Run programs in the sandbox, or compare final answers."""
        asked = [
            (self.questions[number], "<think>" * (number in self.thinking) + text)
            for number, text in answers
        ]
        if self.sandbox is None:
            return [Verdict(one) for one in self.set.solved(asked, self.style)]
        programs = [self.set.program(question, text, self.style) for question, text in asked]
        return [Verdict(*outcome) for outcome in self.sandbox.run(programs)]

    @property
    def facts(self) -> dict[str, Any]:
        """Tell the style, and what programs were run in."""
        protection = {} if self.sandbox is None else {"sandbox": self.sandbox.description}
        return {"benchmark": self.title, "style": self.style} | protection


def _digest(check: dict[str, Any]) -> str:
    """Hash what decides about answers: 16 hex digits, whatever the order of its keys."""
    text = json.dumps(check, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _allow_code(config: EvaluateConfig) -> None:
    if not config.allow_code_execution:
        raise ConfigError(
            f"{config.problems}: has problems that are checked by running what the model wrote. "
            "Pass --allow-code-execution if you want that; it runs in a limited subprocess."
        )


def read_problems(config: EvaluateConfig) -> list[Problem]:
    """Read bundled problems or a file of one's own; see `read_problem_task`."""
    name = config.problems
    kinds = {"bundled": list(problems.KINDS), "bundled:math": ["math"], "bundled:code": ["code"]}
    if name in kinds:
        limit = config.limit or _BUNDLED_PER_KIND * len(kinds[name])
        per_kind = -(-limit // len(kinds[name]))
        dealt = [p for k in kinds[name] for p in problems.held_out(k, per_kind, _BUNDLED_SEED)]
        return dealt[:limit]
    path = Path(name)
    if not path.exists():
        raise DataError(
            f"{name}: no such problems. Write bundled, bundled:math, bundled:code, self:N, "
            f"{', '.join(SETS)} (with :FILE for your own copy), or a JSONL file whose lines have "
            '"prompt" and "check".'
        )
    chosen = [_problem(record, where) for where, record in read_file(path)]
    if not chosen:
        raise DataError(f"{name}: holds no problems.")
    if any(p.kind == "code" for p in chosen):
        _allow_code(config)
    return chosen[: config.limit or None]


def _problem(record: Any, where: str) -> Problem:
    """Read {"prompt": ..., "check": {"answer": ...} or {"function": ..., "tests": ...}}."""
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise DataError(f'{where}: needs an object with "prompt" and "check".')
    found = record.get("check")
    if not isinstance(found, dict):
        raise DataError(f'{where}: "check" must be an object, with what the answer must be.')
    if "function" in found:
        kind, is_good = "code", _is_code_check(found)
    else:
        kind, is_good = "math", _is_number(found.get("answer"))
    if not is_good:
        raise DataError(
            f'{where}: "check" needs "answer": "a number", or "function": "its name" and '
            '"tests": [[arguments, result], ...].'
        )
    return Problem(
        kind=kind,
        structure=_FROM_FILE,
        instance=(where,),
        prompt=record["prompt"],
        answer="",
        check=found,
    )


def _is_code_check(found: dict) -> bool:
    tests = found.get("tests")
    is_pairs = isinstance(tests, list) and all(isinstance(t, list) and len(t) == 2 for t in tests)
    return isinstance(found["function"], str) and is_pairs and len(tests) > 0


def _is_number(text: Any) -> bool:
    try:
        return isinstance(text, str) and Decimal(text).is_finite()
    except InvalidOperation:
        return False

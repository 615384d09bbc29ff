"""How long scoring takes: published reference solutions, run in the sandbox and compared.

    JACOBI_DATA=DATA python benchmarks/scoring.py

DATA holds the four published sets (docs/evaluation.md). Absolute seconds of a CPU; the last line
printed is one JSON object, and figures go to results/scoring.json.
"""

import json
import time
from pathlib import Path

from common import save

from jacobi_forcing.problems.published import SETS, CodeSet, load
from jacobi_forcing.sandbox import Sandbox


def reply(question) -> str:
    """Write the published solution as a chat model would."""
    if question.kind == "math":
        return question.reference
    has_head = question.id.startswith("mbpp")  # of HumanEval the prompt has it
    code = question.reference if has_head else question.text + question.reference
    return f"Here it is:\n```python\n{code}\n```"


def left_behind() -> int:
    """Count processes of the sandbox that are still there."""
    lines = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline"))
    return sum(b"sandbox/child.py" in line for line in lines)


def main() -> None:
    """Score, print and save."""
    sandbox, rows = Sandbox(), []
    for name, chosen in SETS.items():
        questions = load(name)
        texts = [reply(question) for question in questions]
        begin = time.perf_counter()
        if isinstance(chosen, CodeSet):
            pairs = zip(questions, texts, strict=True)
            outcomes = sandbox.run([chosen.program(q, text, "chat") for q, text in pairs])
            solved = sum(outcome.passed for outcome in outcomes)
        else:
            solved = sum(chosen.solved(list(zip(questions, texts, strict=True)), "chat"))
        seconds = time.perf_counter() - begin
        rows.append({"set": name, "answers": len(questions), "solved": solved, "seconds": seconds})
        print(f"{name}: {solved} of {len(questions)} in {seconds:.1f} s")
    rows.append({"left_behind": left_behind()})
    save("scoring", rows, sandbox=sandbox.description)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

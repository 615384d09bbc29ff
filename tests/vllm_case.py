"""One engine of vLLM in a process of its own: `python vllm_case.py case.json`, ids out.

The case: model, prompts (ids), `engine` (more arguments of LLM), `sampling`, `width` (0 is AR).
"""

import json
import os
import sys
from pathlib import Path

PROPOSER = "jacobi_forcing.integrations.vllm.proposer.JacobiProposer"
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}


def main() -> None:
    """Decode the case's prompts; print one JSON object."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    case = json.loads(Path(sys.argv[1]).read_text())
    speculative = {}
    if case["width"]:
        settings = {"method": "custom_class", "model": PROPOSER}
        settings["num_speculative_tokens"] = case["width"]
        speculative = {"speculative_config": settings}
    llm = LLM(
        model=case["model"],
        dtype="float32",
        max_model_len=case.get("max_model_len", 512),
        enforce_eager=True,
        disable_log_stats=False,
        **speculative,
        **case.get("engine", {}),
    )
    sampling = case.get("sampling", {})
    if "regex" in sampling:
        regex = StructuredOutputsParams(regex=sampling.pop("regex"))
        sampling["structured_outputs"] = regex
    outputs = llm.generate(
        [{"prompt_token_ids": ids} for ids in case["prompts"]],
        SamplingParams(**{"temperature": 0, "max_tokens": 96} | sampling),
        use_tqdm=False,
    )
    steps = accepted = 0
    for metric in llm.get_metrics():
        if metric.name == "vllm:iteration_tokens_total":
            steps = metric.count
        if metric.name == "vllm:spec_decode_num_accepted_tokens":
            accepted = metric.value
    found = {
        "ids": [list(output.outputs[0].token_ids) for output in outputs],
        "reasons": [output.outputs[0].finish_reason for output in outputs],
        "steps": steps,
        "accepted": accepted,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

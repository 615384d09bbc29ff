"""Run by test_transformers4.py in an environment with transformers 4: what it makes of folders.

Arguments: a file to write, and folders. Nothing of this project is imported.
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

TEXT = "w5 w9 w2 w33 <eos> w7 12 + 34 = 46, said Anna."


@torch.no_grad()
def found(folder):
    """A folder's logits and whatever else tells one reading of its files from another."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(TEXT)["input_ids"]
    output = model(input_ids=torch.tensor([ids]))
    settings = GenerationConfig.from_pretrained(folder) if "adapters" not in folder else None
    messages = [{"role": "user", "content": TEXT}]
    return {
        "ids": ids,
        "text": tokenizer.decode(ids, skip_special_tokens=True),
        "chat": tokenizer.chat_template
        and tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True),
        "has_cache": output.past_key_values is not None,
        "eos": settings and settings.eos_token_id,
        "logits": output.logits[0].tolist(),
    }


if __name__ == "__main__":
    out, *folders = sys.argv[1:]
    assert transformers.__version__.startswith("4."), transformers.__version__
    with open(out, "w", encoding="utf-8") as file:
        json.dump({folder: found(folder) for folder in folders}, file)

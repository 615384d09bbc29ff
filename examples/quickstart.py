"""Decode a prompt both ways: the answer is the same, the number of forwards is not."""

import jacobi_forcing as jf

model = jf.load_model("tiny-forced")
prompt = (
    "Mina has 12 apples and buys 9 more. She shares them among 3 friends. "
    "How many does each of them get?\n"
)
fast = jf.answer(model, prompt, strategy="window", block_size=16)
slow = jf.answer(model, prompt, strategy="autoregressive")
print(fast.text)
print(f"{fast.tokens_per_forward:.2f} tokens per forward")
assert fast.ids == slow.ids

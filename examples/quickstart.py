"""Decode a prompt both ways: the answer is the same, the number of forwards is not."""

import jacobi_forcing as jf

model = jf.load_model("tiny-forced")
prompt = (
    "Chloe picks 7 plums a minute and Karl picks 5. Their basket already has 12 plums in it. "
    "How many are in the basket after 6 minutes of picking?\n"
)
fast = jf.answer(model, prompt, strategy="window", block_size=16)
slow = jf.answer(model, prompt, strategy="autoregressive")
print(fast.text)
print(f"{fast.tokens_per_forward:.2f} tokens per forward")
assert fast.ids == slow.ids

"""Print an answer as it settles: one line per forward pass."""

import jacobi_forcing as jf

model = jf.load_model("tiny-forced")
prompt = model.tokenizer.encode(
    "Write first_stop(shifts) that adds the first 5 numbers but quits as soon as it meets an 11, "
    "which is not added. Use a for loop. Call the result summed.\n"
)
decoder = jf.DecoderConfig(strategy="window", block_size=16)
strategy = jf.make_strategy(decoder, model.vocab_tokens, seed=0)
request = jf.Request(0, prompt, max_new_tokens=128)
for event in jf.decode(model, [request], lambda _: strategy, max_tokens=512):
    if isinstance(event, jf.Forward):
        print(f"{len(event.accepted):3d} tokens  {model.tokenizer.decode(event.accepted)!r}")

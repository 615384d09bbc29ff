"""The drop-in gives what transformers' generate gives, and refuses what it cannot."""

import pytest
import torch
from test_decoding import DECODERS, random_prompts
from toys import EOS, PAD, VOCAB, save_toy, tiny_network, toy_tokenizer
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    TextIteratorStreamer,
    TextStreamer,
)

import jacobi_forcing as jf
from jacobi_forcing import problems
from jacobi_forcing.errors import ConfigError, ModelError
from jacobi_forcing.integrations import write_custom_generate


def padded(prompts):
    longest = max(map(len, prompts))
    ids = [[PAD] * (longest - len(p)) + p for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_length": 45},
        {"repetition_penalty": 1.4},
        {"min_new_tokens": 20, "bad_words_ids": [[4], [7, 8]]},
        {"eos_token_id": [EOS, 9, 33]},
        {"num_return_sequences": 1, "no_repeat_ngram_size": 3},
        {"logits_processor": LogitsProcessorList([NoRepeatNGramLogitsProcessor(2)])},
        {"prefix_allowed_tokens_fn": lambda row, ids: list(range(row % 2, VOCAB, 2))},
        {"encoder_no_repeat_ngram_size": 1},
        {"encoder_repetition_penalty": 3.0},
        {"stopping_criteria": [lambda ids, scores, **_: ids.shape[1] % 9 == 0]},
    ],
    ids=", ".join,
)
def test_greedy_ids_are_those_of_generate(settings):
    network = tiny_network()
    inputs = padded(random_prompts(21, 5))
    options = {"do_sample": False, "max_new_tokens": 30, "pad_token_id": PAD} | settings
    if "max_length" in settings:
        del options["max_new_tokens"]
    right = network.generate(**inputs, **options)
    for decoder in DECODERS:
        found = network.generate(
            **inputs, **options, custom_generate=jf.generate, block_size=8, **decoder
        )
        assert torch.equal(found, right), decoder


def test_a_single_prompt_needs_no_mask_and_a_dict_holds_the_same():
    network = tiny_network("gemma2")
    (prompt,) = random_prompts(22, 1)
    ids, options = torch.tensor([prompt]), {"do_sample": False, "max_new_tokens": 25}
    right = network.generate(ids, **options)
    assert torch.equal(network.generate(ids, **options, custom_generate=jf.generate), right)
    found = network.generate(
        ids, **options, custom_generate=jf.generate, return_dict_in_generate=True
    )
    assert torch.equal(found.sequences, right)


def test_samples_are_those_of_the_seed_and_rows_differ():
    network = tiny_network()
    (prompt,) = random_prompts(23, 1)
    ids = torch.tensor([prompt])
    options = {"do_sample": True, "temperature": 0.9, "top_k": 20, "max_new_tokens": 25}
    options |= {"num_return_sequences": 4, "custom_generate": jf.generate, "pad_token_id": PAD}
    right = network.generate(ids, **options, seed=5, strategy="autoregressive")
    assert len({tuple(row.tolist()) for row in right}) == 4
    for decoder in DECODERS:
        assert torch.equal(network.generate(ids, **options, seed=5, **decoder), right)
    assert not torch.equal(network.generate(ids, **options, seed=6), right)
    torch.manual_seed(1)
    drawn = network.generate(ids, **options)
    torch.manual_seed(1)
    assert torch.equal(network.generate(ids, **options), drawn)


def test_stop_strings_end_an_answer_where_generate_ends_it():
    model = jf.load_model("tiny-base")
    network, tokenizer = model.network, model.tokenizer
    lengths = set()
    for problem in problems.held_out("math", 4, 0):
        ids = tokenizer(problem.prompt, return_tensors="pt").input_ids
        options = {"do_sample": False, "max_new_tokens": 40}
        free = network.generate(ids, **options)[0, ids.shape[1] :]
        # One that ends inside a token or goes over several, wherever it falls.
        strings = [tokenizer.decode(free)[20:23], "nowhere"]
        right = network.generate(ids, **options, stop_strings=strings, tokenizer=tokenizer)
        stop = {"jacobi_stop": strings, "jacobi_tokenizer": tokenizer}
        found = network.generate(ids, **options, custom_generate=jf.generate, **stop)
        assert torch.equal(found, right)
        lengths.add(right.shape[1] - ids.shape[1])
    assert max(lengths) < 30


def test_streamers_get_the_same_text(capsys):
    network, tokenizer = tiny_network(), toy_tokenizer()
    (prompt,) = random_prompts(25, 1)
    ids, options = torch.tensor([prompt]), {"do_sample": False, "max_new_tokens": 25}
    network.generate(ids, **options, streamer=TextStreamer(tokenizer))
    right = capsys.readouterr().out
    options["custom_generate"] = jf.generate
    for name in ("streamer", "jacobi_streamer"):
        network.generate(ids, **options, **{name: TextStreamer(tokenizer)})
        assert capsys.readouterr().out == right != ""
        pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=10)
        found = network.generate(ids, **options, **{name: pieces})
        assert "".join(pieces) == tokenizer.decode(found[0, len(prompt) :])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 3}, "beam search"),
        ({"output_scores": True, "return_dict_in_generate": True}, "output_scores"),
        ({"output_logits": True, "return_dict_in_generate": True}, "output_logits"),
        ({"strategy": "medusa"}, "strategy"),
        ({"block_size": 1}, "block-size"),
        ({"pool_size": -1}, "pool-size"),
        ({"max_blocks": 0}, "max-blocks"),
        ({"prompt_lookup_num_tokens": 5}, "prompt lookup"),
        ({"guidance_scale": 1.5}, "guidance"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive search"),
        ({"dola_layers": "high"}, "dola generation"),
        ({"token_type_ids": torch.tensor([[0, 1]])}, "token_type_ids"),
        ({"position_ids": torch.tensor([[7, 8]])}, "position_ids"),
        ({"seed": 2**64}, "seed"),
        ({"seed": -1}, "seed"),
        (
            {"stopping_criteria": [lambda ids, scores, **_: torch.tensor([True, False])]},
            "several rows",
        ),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else value,
)
def test_other_ways_of_decoding_are_refused_by_name(settings, message):
    network = tiny_network("gpt2" if "token_type_ids" in settings else "qwen2")
    with pytest.raises((ConfigError, ValueError), match=message):
        network.generate(
            torch.tensor([[5, 6]]), max_new_tokens=5, custom_generate=jf.generate, **settings
        )


@pytest.mark.parametrize("attention", ["flex_attention", "paged|sdpa"])
def test_attention_that_takes_no_masks_is_refused_before_it_runs(attention):
    network = tiny_network()
    network.config._attn_implementation = attention
    with pytest.raises(ModelError, match=r"attends with (flex|paged).*implementation='sdpa'"):
        network.generate(torch.tensor([[5, 6]]), max_new_tokens=5, custom_generate=jf.generate)


def test_an_assistant_model_is_refused():
    network = tiny_network()
    with pytest.raises((ConfigError, ValueError), match="assist"):
        network.generate(
            torch.tensor([[5, 6]]),
            max_new_tokens=5,
            custom_generate=jf.generate,
            assistant_model=tiny_network(seed=1),
        )


def test_right_padding_and_a_filled_cache_are_refused():
    network = tiny_network()
    inputs = padded([[5, 6, 7], [8]])
    turned = {name: value.flip(1) for name, value in inputs.items()}
    with pytest.raises(ConfigError, match="padding_side"):
        network.generate(**turned, max_new_tokens=5, custom_generate=jf.generate)
    cache = network(torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
    with pytest.raises(ConfigError, match="past_key_values"):
        network.generate(
            torch.tensor([[5, 6, 7, 8]]),
            past_key_values=cache,
            max_new_tokens=5,
            custom_generate=jf.generate,
        )
    assert VOCAB > 8


def test_a_checkpoint_brings_its_own_generate(tmp_path):
    folder = save_toy(tmp_path / "model")
    write_custom_generate(folder)
    network = AutoModelForCausalLM.from_pretrained(folder)
    (prompt,) = random_prompts(26, 1)
    ids, options = torch.tensor([prompt]), {"do_sample": False, "max_new_tokens": 20}
    right = network.generate(ids, **options)
    trusted = {"custom_generate": str(folder), "trust_remote_code": True}
    assert torch.equal(network.generate(ids, **options, **trusted, strategy="jacobi"), right)
    streamer = TextIteratorStreamer(toy_tokenizer(), skip_prompt=True)
    assert torch.equal(network.generate(ids, **options, **trusted, streamer=streamer), right)
    assert "".join(streamer) == toy_tokenizer().decode(right[0, len(prompt) :])
    with pytest.raises(ValueError, match="trust_remote_code"):
        network.generate(ids, **options, custom_generate=str(folder), trust_remote_code=False)
    with pytest.raises(ConfigError, match="assistant_model"):
        network.generate(ids, **options, **trusted, assistant_model=network, strategy="jacobi")
    words = toy_tokenizer().decode(right[0, len(prompt) : len(prompt) + 1])
    trusted["tokenizer"] = toy_tokenizer()
    short = network.generate(ids, **options, **trusted, stop_strings=words)
    assert short.shape[1] < right.shape[1]
    network.generation_config.stop_strings = [words]
    assert torch.equal(network.generate(ids, **options, **trusted), short)

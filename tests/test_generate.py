"""The drop-in gives what transformers' generate gives, and refuses what it cannot."""

import sys
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from test_decoding import DECODERS, random_prompts
from toys import EOS, PAD, VOCAB, save_toy, tiny_network, toy_model, toy_tokenizer
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    TextIteratorStreamer,
    TextStreamer,
)

import jacobi_forcing as jf
from jacobi_forcing import problems
from jacobi_forcing.errors import ConfigError, DataError, ModelError
from jacobi_forcing.integrations import write_custom_generate
from jacobi_forcing.models.causal_lm import wrap


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
    trusted["tokenizer"] = toy_tokenizer("abcdef")
    short = network.generate(ids, **options, **trusted, stop_strings=words)
    options["tokenizer"] = trusted.pop("tokenizer")
    assert torch.equal(short, network.generate(ids, **options, stop_strings=words))
    assert short.shape[1] < right.shape[1]
    network.generation_config.stop_strings = [words]
    assert torch.equal(network.generate(ids, **options, **trusted), short)


def count_forwards(network, generate, *arguments, **settings):
    """What a call returns, or raises, and the forwards that it took."""
    count = []
    hook = network.get_decoder().register_forward_hook(lambda *_: count.append(None))
    try:
        found = generate(*arguments, **settings)
    except Exception as error:
        found = error
    hook.remove()
    return getattr(found, "sequences", found), len(count)


def test_a_checkpoint_with_its_own_generate_takes_every_call(tmp_path):
    """As code does that knows nothing of it: what ours cannot do, transformers does."""
    folder = save_toy(tmp_path / "model", seed=3)
    write_custom_generate(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    assert "generate" in vars(network)
    ids, tokenizer = torch.tensor([random_prompts(26, 1)[0]]), toy_tokenizer("abcdef")
    embeddings = network.get_input_embeddings()(ids).detach()
    right_padded = torch.ones(2, ids.shape[1], dtype=torch.long)
    right_padded[1, -2:] = 0
    positional = GenerationConfig(max_new_tokens=7, repetition_penalty=1.3)
    num_ours = num_warned = 0
    for arguments, settings, is_warned in [
        ((ids,), {"max_new_tokens": 20}, False),
        ((), {"inputs": ids, "max_new_tokens": 20}, False),
        ((ids, positional), {}, False),
        ((ids,), {"max_new_tokens": 20, "stop_strings": ["w2"], "tokenizer": tokenizer}, False),
        ((ids,), {"max_new_tokens": 20, "stop_strings": ["w2"]}, False),  # fails in both
        ((ids,), {"max_new_tokens": 8, "num_beams": 2}, True),
        ((ids,), {"max_new_tokens": 8, "assistant_model": network}, True),
        ((ids,), {"max_new_tokens": 8, "guidance_scale": 1.5}, True),
        ((ids,), {"max_new_tokens": 8, "prompt_lookup_num_tokens": 2}, True),
        ((ids,), {"output_scores": True, "return_dict_in_generate": True}, True),
        ((), {"inputs_embeds": embeddings, "max_new_tokens": 8}, True),
        ((ids.expand(2, -1),), {"attention_mask": right_padded}, True),
        ((ids,), {"tokens": 3}, False),  # unknown in both
        ((ids,), {"custom_generate": jf.generate, "max_new_tokens": 20}, False),
    ]:
        settings = {"do_sample": False} | settings
        plain = {n: value for n, value in settings.items() if n != "custom_generate"}
        ordinary = partial(type(network).generate, network)
        right, slow = count_forwards(network, ordinary, *arguments, **plain)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found, fast = count_forwards(network, network.generate, *arguments, **settings)
        told = [one for one in caught if "generate decodes instead" in str(one.message)]
        assert bool(told) == is_warned, (settings, told)
        if isinstance(right, Exception):
            assert type(found) is type(right), settings
        else:
            assert torch.equal(found, right), settings
        num_ours += fast != slow
        num_warned += bool(told)
    assert num_ours > 0  # decoded by ours, in as many forwards as it takes
    assert num_warned == 7
    with pytest.raises(ConfigError, match="beam search"):
        network.generate(ids, num_beams=2, strategy="window")
    network.train()
    with pytest.warns(UserWarning, match=r"training mode.*generate decodes instead"):
        network.generate(ids, max_new_tokens=3)


def test_a_checkpoint_decodes_where_this_package_is_missing(tmp_path, monkeypatch):
    folder = save_toy(tmp_path / "model")
    write_custom_generate(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    monkeypatch.setitem(sys.modules, "jacobi_forcing.integrations.generate", None)
    ids = torch.tensor([[5, 6, 7]])
    right = type(network).generate(network, ids, max_new_tokens=9)
    with pytest.warns(UserWarning, match="jacobi-forcing cannot be used here"):
        assert torch.equal(network.generate(ids, max_new_tokens=9), right)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("part", ["", "model.layers.1"])
def test_training_mode_is_refused_by_name(checkpointing, part):
    network, ids = tiny_network(), torch.tensor([[5, 6]])
    options = {"max_new_tokens": 4, "custom_generate": jf.generate}
    right = network.generate(ids, **options)  # what was probed once is looked at again
    if checkpointing:
        network.gradient_checkpointing_enable()
    network.get_submodule(part).train()
    reason = "gradient checkpointing" if checkpointing else "dropout"
    model = toy_model()
    for refused in (
        lambda: network.generate(ids, **options),
        lambda: wrap("toy", network, toy_tokenizer()),
        lambda: jf.answer(replace(model, network=network), [5, 6]),
    ):
        with pytest.raises(ModelError, match=f"training mode.*{reason}.*eval") as error:
            refused()
        assert part in str(error.value)
        assert "\n" not in str(error.value)
    network.eval()
    assert torch.equal(network.generate(ids, **options), right)


def test_the_end_of_the_context_is_warned_of():
    network = tiny_network("llama", max_position_embeddings=24, eos_token_id=None)
    ids, ours = torch.tensor([[5, 6, 7]]), {"custom_generate": jf.generate, "pad_token_id": PAD}
    right = network.generate(ids, max_new_tokens=40, pad_token_id=PAD)
    with pytest.warns(UserWarning, match=r"may take 43 tokens.*holds 24.*ends there"):
        found = network.generate(ids, max_new_tokens=40, **ours)
    assert torch.equal(found, right[:, :24])
    assert right.shape[1] == 43
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.generate(ids, max_new_tokens=21, **ours)
    with pytest.raises(DataError, match=r"30 tokens.*holds 24"):
        network.generate(torch.full((1, 30), 5), max_new_tokens=4, **ours)


def test_rows_without_an_eos_grow_until_all_are_at_their_end():
    network = tiny_network(eos_token_id=None)
    inputs = padded(random_prompts(27, 4)) | {"max_new_tokens": 30, "pad_token_id": PAD}
    seen = network.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    ends = [int(row[7 * number + 3]) for number, row in enumerate(seen)]
    rule = [lambda ids, scores, **_: torch.isin(ids[:, -1], torch.tensor(ends))]
    right = network.generate(**inputs, stopping_criteria=rule)
    found = network.generate(**inputs, stopping_criteria=rule, custom_generate=jf.generate)
    assert torch.equal(found, right)
    assert right.shape[1] < inputs["input_ids"].shape[1] + 30


def test_called_without_transformers_it_says_how_to_call_it():
    with pytest.raises(ConfigError, match=r"Call model\.generate\(..., custom_generate="):
        jf.generate(tiny_network(), torch.tensor([[5, 6]]))

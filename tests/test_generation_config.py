"""What generation_config.json says: done as `model.generate` does it, refused, or told of."""

import json

import pytest
import torch
from test_decoding import DECODERS, random_prompts
from toys import EOS, PAD, VOCAB, save_toy, tiny_network, toy_model, toy_tokenizer
from transformers import GenerationConfig

import jacobi_forcing as jf
from jacobi_forcing import cli
from jacobi_forcing.data.trajectories import read_all
from jacobi_forcing.decoding import Sampling
from jacobi_forcing.decoding.generation import Rules, changing_settings, sampling_defaults
from jacobi_forcing.errors import ModelError
from jacobi_forcing.models.causal_lm import wrap
from jacobi_forcing.serving.asked import Limits, Reader
from jacobi_forcing.serving.engine import Engine, Finished, Job
from jacobi_forcing.serving.facts import facts_of
from jacobi_forcing.serving.schema import ChatBody, CompletionBody

DONE = [
    {"suppress_tokens": [9, 17, 22, EOS]},
    {"begin_suppress_tokens": [*range(20, 60)]},
    {"bad_words_ids": [[token] for token in range(2, 60, 3)] + [[4, 7], [30, 31]]},
    {"no_repeat_ngram_size": 1},
    {"sequence_bias": [[[9], -9.0], [[7, 14], 30.0], [[44], 3.0]]},
    {"min_new_tokens": 14},
    {"min_length": 12},
    {"forced_eos_token_id": 5},
    {"forced_bos_token_id": 6},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 1.7, "sequence_bias": [[[9], 5.0], [[30], 4.0]], "min_length": 12},
    {"encoder_repetition_penalty": 2.5},
    {"encoder_no_repeat_ngram_size": 1},
    {"exponential_decay_length_penalty": [3, 1.4]},
    {"remove_invalid_values": True, "renormalize_logits": True, "suppress_tokens": [*range(2, 40)]},
    {"watermarking_config": {"bias": 6.0, "seeding_scheme": "lefthash"}},
]
REFUSED = {
    "num_beams": {"num_beams": 3},
    "guidance_scale": {"guidance_scale": 1.5},
    "token_healing": {"token_healing": True},
    "max_time": {"max_time": 5.0},
    "penalty_alpha": {"penalty_alpha": 0.6, "top_k": 4},
    "dola_layers": {"dola_layers": "high"},
    "watermarking_config": {
        "watermarking_config": {"ngram_len": 3, "keys": [1, 2, 3], "context_history_size": 4}
    },
}
TEMPLATE = (
    "{% for m in messages %}w{{ 3 if m.role == 'user' else 4 }} {{ m.content }} w5\n{% endfor %}"
    "{% if add_generation_prompt %}w4{% endif %}"
)


def model_with(settings, seed=0, **overrides):
    network = tiny_network(seed=seed, **overrides)
    kept = {name: getattr(network.generation_config, name) for name in ("eos_token_id",)}
    if "keys" in settings.get("watermarking_config", {}):
        from transformers import SynthIDTextWatermarkingConfig as Watermark

        settings = {"watermarking_config": Watermark(**settings["watermarking_config"])}
    network.generation_config = GenerationConfig(pad_token_id=PAD, **kept | settings)
    return wrap("toy", network, toy_tokenizer())


def generated(model, prompt, **more):
    ids = torch.tensor([prompt])
    found = model.network.generate(ids, max_new_tokens=20, do_sample=False, **more)
    return found[0, len(prompt) :].tolist()


def served(model, body):
    """What the engine answers to a body."""
    engine = Engine(
        model,
        jf.DecoderConfig(block_size=4),
        batch_size=1,
        max_waiting=1,
        max_tokens=99,
        prefill_tokens=64,
        prefix_tokens=0,
    )
    (request,) = Reader(engine.facts, engine.decoder, Limits(99, 20, 1)).read(body).requests
    found = []
    engine.submit([Job(request, engine.decoder, found.append, deadline=1e12)])
    while not found or not isinstance(found[-1], Finished):
        assert engine._take()
        for event in engine._step():
            engine._tell(event)
    return found[-1]


@pytest.mark.parametrize("settings", DONE, ids=", ".join)
def test_settings_are_obeyed_as_generate_obeys_them(settings):
    model, plain, num_other = model_with(settings), toy_model(), 0
    for number, prompt in enumerate([*random_prompts(31, 2), [7]]):
        right = generated(model, prompt)
        num_other += right != generated(plain, prompt)
        for decoder in DECODERS[number::6]:
            found = jf.answer(model, prompt, max_new_tokens=20, tuned=False, **decoder)
            assert found.ids == right, decoder
        body = CompletionBody(model="toy", prompt=prompt, temperature=0.0)
        assert served(model, body).answer_ids == right
    assert num_other > 0
    assert changing_settings(model.network.generation_config)


def test_a_request_overrides_a_setting_as_an_argument_does():
    model = model_with({"repetition_penalty": 1.7, "suppress_tokens": [9], "min_new_tokens": 9})
    num_other = 0
    for prompt in random_prompts(32, 4):
        body = CompletionBody(model="toy", prompt=prompt, repetition_penalty=1.0, min_tokens=2)
        right = generated(model, prompt, repetition_penalty=1.0, min_new_tokens=2)
        assert served(model, body).answer_ids == right
        sampling = Sampling(min_new_tokens=2)
        assert jf.answer(model, prompt, max_new_tokens=20, sampling=sampling).ids == right
        num_other += right != generated(model, prompt)
    assert num_other > 0


@pytest.mark.parametrize("name", ["typical_p", "epsilon_cutoff", "eta_cutoff", "top_h"])
def test_what_is_drawn_is_among_what_generate_may_draw(name):
    settings = {"do_sample": True, "temperature": 1.5, "top_k": 40, "suppress_tokens": [9]}
    model = model_with(settings | {name: 0.3 if name != "epsilon_cutoff" else 0.05})
    config = model.network.generation_config
    sampling = Sampling(**sampling_defaults(config, draws=True))
    applied = Rules(model).apply(sampling, [5, 6], 20)
    scores = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0)) * 3
    own = config.__class__(**config.to_dict())
    own._eos_token_tensor = torch.tensor([EOS])
    right = model.network._get_logits_processor(own, 2, torch.tensor([[5, 6]]), device="cpu")
    ids = torch.full((3, 4), 7)
    found = scores.clone()
    for processor in applied.processors:
        found = processor(ids, found)
    assert torch.allclose(found, right(ids, scores.clone()))
    assert (applied.temperature, applied.top_k) == (1.0, 0)
    assert found.isinf().sum() > 3


def test_values_that_change_nothing_leave_drawing_to_us():
    same = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "min_length": 0}
    same |= {"num_beams": 1, "guidance_scale": 1.0, "stop_strings": [], "max_new_tokens": 7}
    for settings in (same, {name: None for name in same}):
        model = toy_model()
        model.network.generation_config = GenerationConfig(eos_token_id=EOS)
        for name, value in settings.items():
            setattr(model.network.generation_config, name, value)
        assert not changing_settings(model.network.generation_config)
        sampling = Sampling(temperature=0.7, top_k=3, seed=4)
        assert Rules(model).apply(sampling, [5, 6], 20) is sampling


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_by_name(name):
    model = model_with(REFUSED[name])
    for refused in (
        lambda: jf.answer(model, [5, 6]),
        lambda: served(model, CompletionBody(model="toy", prompt=[5, 6])),
    ):
        with pytest.raises(ModelError, match=f"generation_config.json sets.*{name}") as error:
            refused()
        assert "\n" not in str(error.value)


def test_a_setting_that_is_broken_is_refused():
    model = model_with({"sequence_bias": [[[VOCAB + 5], 2.0]]})
    with pytest.raises(ModelError, match=r"generation_config.json cannot be obeyed"):
        jf.answer(model, [5, 6])


def test_texts_end_at_the_stop_strings_of_the_checkpoint():
    model = model_with({"stop_strings": ["w9", "w22"]})
    (prompt,) = random_prompts(33, 1)
    plain = jf.answer(model_with({}), prompt, max_new_tokens=40).ids
    ending = model.tokenizer.decode(plain[4])
    model.network.generation_config.stop_strings = ending
    first = plain.index(plain[4])
    assert jf.answer(model, prompt, max_new_tokens=40).ids == plain[: first + 1]
    finished = served(model, CompletionBody(model="toy", prompt=prompt))
    assert (finished.answer_ids, finished.reason) == (plain[: first + 1], "stop")


@pytest.fixture
def folder(tmp_path):
    """A checkpoint that suppresses tokens, draws, and penalises."""
    path = save_toy(tmp_path / "model")
    file = path / "generation_config.json"
    settings = {"suppress_tokens": [9, 17, EOS], "repetition_penalty": 1.4, "do_sample": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return path


def test_commands_obey_or_say_what_they_leave_out(folder, tmp_path, capsys, caplog):
    caplog.set_level("INFO", "jacobi_forcing")
    model = jf.load_model(str(folder))
    text, ids = "w7 w8 w30", [7, 8, 30]
    common = ["--model", str(folder), "--max-new-tokens", "20"]
    cli.main(["decode", *common, "--prompt", text, "--json"])
    assert json.loads(capsys.readouterr().out)["ids"] == generated(model, ids)
    assert "draws tokens (do_sample)" in caplog.text
    cli.main(["decode", *common, "--prompt", text, "--json", "--repetition-penalty", "1"])
    right = generated(model, ids, repetition_penalty=1.0)
    assert json.loads(capsys.readouterr().out)["ids"] == right != generated(model, ids)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": text}) + "\n")
    for asked, named in (
        ([], "do_sample, repetition_penalty, suppress_tokens"),
        (["--temperature", "1", "--repetition-penalty", "1.4"], "suppress_tokens"),
    ):
        caplog.clear()
        arguments = ["collect", *common, "--prompts", str(prompts), "--out", str(tmp_path / named)]
        cli.main([*arguments, *asked])
        assert f"sets {named}, which changes" in caplog.text
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"prompt": text, "check": {"answer": "1"}}) + "\n")
    caplog.clear()
    cli.main(["evaluate", *common, "--problems", str(problems)])
    assert "sets do_sample, repetition_penalty, suppress_tokens, which changes" in caplog.text


# Where chats end


def chat_model(generation_eos=EOS, config_eos=EOS, tokenizer_eos="<eos>", template=TEMPLATE):
    network = tiny_network(eos_token_id=config_eos)
    network.generation_config.eos_token_id = generation_eos
    tokenizer = toy_tokenizer(eos_token=tokenizer_eos, chat_template=template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["w5", "w60"]})
    return wrap("toy", network, tokenizer)


@pytest.mark.parametrize(
    ("model", "raw", "chat"),
    [
        ({"template": None}, {EOS}, {EOS}),
        ({}, {EOS}, {EOS, 5}),
        ({"generation_eos": 5}, {5}, {EOS, 5}),
        ({"generation_eos": [8, 9]}, {8, 9}, {EOS, 5, 8, 9}),
        ({"tokenizer_eos": "w11"}, {EOS}, {EOS, 5, 11}),
        ({"config_eos": 12}, {EOS}, {EOS, 5, 12}),
        ({"template": TEMPLATE.replace(" w5", " w6")}, {EOS}, {EOS}),  # w6 is no special token
        ({"template": TEMPLATE.replace(" w5", "")}, {EOS}, {EOS}),
        ({"template": "{{ raise_exception('no') }}"}, {EOS}, {EOS}),
        (
            {"template": TEMPLATE.replace("m.content", "m.content[0].text")},
            {EOS},
            {EOS, 5},
        ),
    ],
)
def test_a_chat_ends_at_whatever_may_end_one(model, raw, chat, caplog):
    caplog.set_level("INFO", "jacobi_forcing")
    found = chat_model(**model)
    assert (found.eos_ids, found.chat_eos_ids) == (raw, chat)
    assert found.for_chat().eos_ids == chat
    lines = [record for record in caplog.records if "ends a turn with" in record.message]
    assert len(lines) == (raw != chat)


def test_commands_end_chats_there_and_raw_prompts_as_generate_does(tmp_path, capsys):
    network = tiny_network()
    chat = {"role": "user", "content": "w7 w8"}
    rendered = [3, 7, 8, 5, 4]
    plain = generated(toy_model(), rendered)
    ending = plain[6]
    first = plain.index(ending)
    assert EOS not in plain[: first + 1]
    tokenizer = toy_tokenizer(eos_token=f"w{ending}", chat_template=TEMPLATE)
    model = wrap("toy", network, tokenizer)
    assert model.eos_ids == {EOS} != model.chat_eos_ids
    body = ChatBody(model="toy", messages=[chat], temperature=0.0)
    finished = served(model, body)
    assert finished.answer_ids == plain[: first + 1]
    raw = served(model, CompletionBody(model="toy", prompt=rendered, temperature=0.0))
    assert raw.answer_ids == plain
    least = served(model, body.model_copy(update={"min_tokens": first + 3})).answer_ids
    assert ending not in least[: first + 2]
    assert len(least) > first + 2
    assert facts_of(model).chat_eos_ids == {EOS, ending}
    folder = tmp_path / "model"
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    common = ["--model", str(folder), "--max-new-tokens", "20"]
    cli.main(["decode", *common, "--prompt", "w7 w8", "--chat", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["ids"], found["finish_reason"]) == (plain[: first + 1], "eos")
    cli.main(["decode", *common, "--prompt", "w3 w7 w8 w5 w4", "--raw", "--json"])
    assert json.loads(capsys.readouterr().out)["ids"] == plain
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"messages": [chat]}, {"prompt": "w3 w7 w8 w5 w4"}]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "collected"
    settings = ["--block-size", "4", "--max-new-tokens", "20"]
    cli.main(["collect", *common, *settings, "--prompts", str(prompts), "--out", str(out)])
    rows = sorted(read_all(out), key=lambda row: row.prompt_index)
    assert rows[0].answer_ids == plain[: first + 1]
    assert rows[0].finish_reason == "eos"
    assert rows[1].answer_ids[: first + 2] == plain[: first + 2]

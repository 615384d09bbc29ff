"""Decode this checkpoint several tokens per forward, with exactly the ids of one at a time.

    model.generate(**inputs, custom_generate=FOLDER, trust_remote_code=True, strategy="window")

A copy of this file lies in `custom_generate/` of every checkpoint that jacobi-forcing writes, where
transformers looks for it. It only calls the installed package.
"""

import copy

from transformers import GenerationMixin

from jacobi_forcing.integrations.generate import generate as jacobi


def generate(model, *arguments, streamer=None, tokenizer=None, **settings):
    """Call transformers' own generate with Jacobi decoding in its loop's place."""
    # What generate keeps from a callable goes there by another name.
    if streamer is not None:
        settings["jacobi_streamer"] = streamer
    if settings.get("assistant_model") is not None:
        raise ValueError("Jacobi decoding needs no assistant_model. Leave it out.")
    strings = settings.pop("stop_strings", None)
    config = settings.get("generation_config") or model.generation_config
    if not strings and config.stop_strings:
        strings = config.stop_strings
        settings["generation_config"] = copy.deepcopy(config)
        settings["generation_config"].stop_strings = None
    if strings:
        settings["jacobi_stop"] = strings
        settings["jacobi_tokenizer"] = tokenizer
    # Not model.generate: with trust_remote_code, loading a model puts this function there.
    return GenerationMixin.generate(model, *arguments, custom_generate=jacobi, **settings)

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
    # What generate is to take no notice of goes there by another name.
    if streamer is not None:
        settings["jacobi_streamer"] = streamer
    if settings.get("assistant_model") is not None:
        raise ValueError("Jacobi decoding needs no assistant_model. Leave it out.")
    own, given = model.generation_config, settings.get("generation_config")
    strings = settings.pop("stop_strings", None) or (given or own).stop_strings or own.stop_strings
    if strings:
        settings["jacobi_stop"] = strings
        settings["jacobi_tokenizer"] = tokenizer
    if given is not None and given.stop_strings:
        settings["generation_config"] = copy.deepcopy(given)
        settings["generation_config"].stop_strings = None
    kept, own.stop_strings = own.stop_strings, None
    try:
        # Not model.generate: with trust_remote_code, loading a model puts this function there.
        return GenerationMixin.generate(model, *arguments, custom_generate=jacobi, **settings)
    finally:
        own.stop_strings = kept

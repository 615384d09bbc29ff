"""Decode this checkpoint several tokens per forward, with exactly the ids of one at a time.

    model.generate(**inputs, custom_generate=FOLDER, trust_remote_code=True, strategy="window")

A copy of this file lies in `custom_generate/` of every checkpoint that jacobi-forcing writes, where
transformers looks for it. It only calls the installed package.
"""

from transformers import GenerationMixin

from jacobi_forcing import generate as jacobi


def generate(model, *arguments, streamer=None, **settings):
    """Call transformers' own generate with Jacobi decoding in its loop's place."""
    if streamer is not None:
        settings["jacobi_streamer"] = streamer  # generate keeps `streamer` from a callable
    # Not model.generate: with trust_remote_code, loading a model puts this function there.
    return GenerationMixin.generate(model, *arguments, custom_generate=jacobi, **settings)

"""Decode this checkpoint several tokens per forward, with exactly the ids of one at a time.

    model.generate(**inputs, custom_generate=FOLDER, trust_remote_code=True, strategy="window")

A copy of this file lies in `custom_generate/` of every checkpoint that jacobi-forcing writes.
transformers calls it in the place of `model.generate`, in version 4 without being asked. So it
takes every call: what the installed package cannot do is decoded by transformers itself.
"""

import warnings


def generate(*arguments, model=None, **settings):
    """Call transformers' own generate, with Jacobi decoding in its loop's place where possible."""
    if model is None:
        model, *arguments = arguments
    try:
        from jacobi_forcing.integrations.generate import generate_or_ordinary
    except ImportError as error:
        warnings.warn(
            f"jacobi-forcing cannot be used here ({error}), so transformers decodes one token at a "
            "time. Install it: pip install jacobi-forcing",
            stacklevel=2,
        )
        return type(model).generate(model, *arguments, **settings)
    return generate_or_ordinary(model, *arguments, **settings)

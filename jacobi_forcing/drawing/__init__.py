"""Pictures of a decode, in a browser and in a terminal, drawn from the events of the decoding loop.

Readers only: nothing here runs a model. May import: config, errors, data, decoding.
"""

"""The outside: what lets users of other libraries decode with ours.

May import: decoding and what is below it.
"""

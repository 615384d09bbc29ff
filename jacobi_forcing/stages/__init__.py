"""The commands, one file each, with `run(config)`; between them there are only files.

May import everything but `cli`, and not each other (`force` and `demo`, which run others, may).
"""

"""The files between stages: prompts, trajectories, packed sequences, and the record of every run.

Files are written under a temporary name and renamed, so what has its final name is whole. May
import: config, errors, models, problems.
"""

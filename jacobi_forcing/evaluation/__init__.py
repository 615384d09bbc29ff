"""What models are measured on, the answers they gave, and what those come to.

`tasks` and `texts` ask and judge, `answers` keeps every answer in a file of its own, `summary`
counts, `statistics` says how sure that is. May import: the layers below its own.
"""

SUMMARY, PAGE = "summary.json", "report.html"  # in an evaluation's folder, beside its answers

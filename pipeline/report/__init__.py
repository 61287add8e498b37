"""The page of a run, which its last node writes. Names only: the command imports them before TFX is there."""

PAGE = "report.html"
DATA = "report.json"

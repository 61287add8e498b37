"""The page of a run, which its last node writes. Names only: the command imports them before TFX is there."""

NODE = "RunReport"
PAGE = "report.html"
DATA = "report.json"

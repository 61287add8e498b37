"""The report of a run. This file holds only names, which the command imports without TFX."""

PAGE = "report.html"
DATA = "report.json"

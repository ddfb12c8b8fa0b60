"""One HTML page about an experiment, which shows everything that a search found and needs no network to be read."""

from search.report.page import write_report
from search.report.watch import watch_report

__all__ = ["watch_report", "write_report"]

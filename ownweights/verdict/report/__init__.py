"""A verdict as people read it: text for a terminal, and a page that needs nothing but itself.

text   the lines of `own verdict show`
page   the page of `own verdict report`, from page.html
chart  the drawings on it
"""

from ownweights.verdict.report.text import report_text

__all__ = ["report_text"]

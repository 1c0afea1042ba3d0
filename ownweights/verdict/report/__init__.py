"""A verdict as people read it: text for a terminal, and a page that needs nothing but itself.

text     the lines of `own verdict report`
page     its page, from page.html
chart    the drawings on it
preview  the lines of `own verdict run`, before anything is spent
"""

from ownweights.verdict.report.text import report_text

__all__ = ["report_text"]

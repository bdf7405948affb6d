"""Cells that no spreadsheet runs."""

import re

# What a spreadsheet takes for a formula, of whichever width; it begins a cell. Where another sign
# than the comma parts cells, quotes do not keep them together: then what follows that sign, or a
# line's end, begins a cell as well.
_BEGINS = r"(^|[;\t\r\n])"
_FORMULA = r"(?=[=+\-@\t\r\n＝＋－＠])"


def harmless(cell: str) -> str:
    """A text that is shown as it is, with an apostrophe before whatever would be a formula."""
    return re.sub(_BEGINS + _FORMULA, r"\1'", cell)


def restored(cell: str) -> str:
    """The text again, of what `harmless` made of it."""
    return re.sub(_BEGINS + "'" + _FORMULA, r"\1", cell)

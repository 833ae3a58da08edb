"""Which texts a spreadsheet would run."""

FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""Characters with which a formula begins, also of full width."""

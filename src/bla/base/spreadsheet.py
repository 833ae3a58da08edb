"""Which texts a spreadsheet would run."""

FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""Letters with which a formula begins, also of full width."""

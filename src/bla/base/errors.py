"""The one exception that a user is meant to read."""


class BlaError(Exception):
    """Something outside the program is wrong: a setting, a file, an image, a weight.

    The message names the key or file and the remedy; a stage prints it and exits with code 1.
    """

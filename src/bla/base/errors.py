"""The one exception whose message is written for users."""


class BlaError(Exception):
    """A setting, file, image or weight is wrong, not the program.

    The message names the key or file and the remedy; a stage prints it and exits with code 1.
    """

"""The one exception that reaches people: what went wrong and what to do, in one line."""


class UserError(Exception):
    """Something the person at the keyboard can mend.

    Entry points print its message as one line on stderr and exit with code 2, without a
    traceback. The message names the thing that is wrong and what to do about it.
    """

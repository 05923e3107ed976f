"""The exceptions that reach people: what went wrong and what to do, in one line."""


class UserError(Exception):
    """Something the person at the keyboard can mend.

    Entry points print its message as one line on stderr and exit with code 2, without a
    traceback. The message names the thing that is wrong and what to do about it.
    """


class PeersLost(UserError):
    """Another process of the run is gone."""

    def __init__(self, reason: str):
        """reason: how that was noticed."""
        super().__init__(
            f"another process of this run is gone ({reason}): start all of them again, and it "
            "goes on from its last checkpoint"
        )


class Diverged(UserError):
    """The numbers are not finite, or the loss is that of a network gone astray."""

    def __init__(self, what: str, advice: str):
        """what: what was seen, where, at which learning rate."""
        super().__init__(f"{what}. {advice}")
        self.what = what

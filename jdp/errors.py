"""The one exception for mistakes that a user can make and mend."""


class UserError(Exception):
    """What was wrong, where, and what to do, in one line.

    Library code raises it; scripts in `experiments/` print the line and exit with status 2.
    """


class StorageError(UserError):
    """Something could not be written, for instance to a full disk.

    Writers that were interrupted may complain again while the interpreter shuts down, so a script
    prints the line and leaves at once.
    """

"""The one exception for mistakes that a user can make and mend."""


class UserError(ValueError):
    """What was wrong, where, and what to do, in one line.

    Library code raises it; scripts in `experiments/` print the line and exit with status 2.
    """

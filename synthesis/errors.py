"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend; its text is one sentence that names the file, the field and what was expected.

    The command line prints the text without a traceback and exits with status 2.
    """

"""The mistakes a user can make and mend; all else is ours: an assert or a plain exception."""


class JacobiForcingError(Exception):
    """A mistake the user can mend: the command line prints it in one line and exits with 2."""


class ConfigError(JacobiForcingError):
    """A setting is unknown, out of range, or does not go with another."""


class DataError(JacobiForcingError):
    """A file does not hold what it should; the message names the file and, if known, the line."""


class ModelError(JacobiForcingError):
    """A model cannot be read, or cannot do what Jacobi decoding needs."""

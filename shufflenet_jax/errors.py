"""What a user can mend: commands print it as one line, without a traceback."""


class UserError(Exception):
  """Wrong input. The message is one line: what is wrong, the value, and what would do."""

"""What can go wrong in a worker, by what should be done about it."""


class TaskFailed(Exception):
    """This task cannot be finished by this worker; the reason goes to the database.

    retry: True where another try, later or elsewhere, may succeed (a 503, a broken
    connection); False parks the task at once (a WAT that does not exist).
    """

    def __init__(self, reason: str, *, retry: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry


class Refused(Exception):
    """The configuration or the database refuses; one sentence that says what to do."""

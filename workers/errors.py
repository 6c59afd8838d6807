"""The errors of a worker, one class for each way to go on after it."""


class WorkerError(Exception):
    """Base of the errors here; its text is one sentence for a person."""


class TaskFailed(WorkerError):
    """This task cannot be finished by this worker; the reason goes to the database.

    retry: True where another attempt, later or elsewhere, may succeed (a 503, a broken
    connection); False discards the task at once (a WAT that does not exist).
    """

    def __init__(self, reason: str, *, retry: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry = retry


class LeaseLost(WorkerError):
    """The lease has ended: drop the work; parts that were submitted stay."""


class Malformed(WorkerError):
    """The database refused an argument or a submission, and changed nothing."""


class Refused(WorkerError):
    """The configuration or the database refuses this worker; the text says what to do."""


def of_another_kind(found: str, wanted: str) -> Refused:
    """The refusal of a login of one kind that a command of another kind was given."""
    return Refused(
        f"this login is for kind {found}, not {wanted}: run `pairmill work {found}` with it, or ask"
        f" the admin for a DSN of kind {wanted}"
    )


class Unreachable(WorkerError):
    """The database did not answer for as long as the worker was willing to wait."""


class NotNow(WorkerError):
    """This worker cannot work for a while, through no fault of the task's: it is handed back, and
    no attempt is counted."""

"""A process that searches for a page's kNN service: `python -m … FD`, over a socket that it was
given. It ends when the page's end of the socket does."""

import gc
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from pairmill.ops.errors import UserError
from pairmill.ops.web.knn.batch_search import BatchSearch
from pairmill.workers.safe_text import say, say_traceback

REFRESH_SECONDS = 30.0  # between two looks whether a release was written anew


def main(handle: int) -> None:
    """The first message is a SearchSetup, answered by None or the sentence of its UserError; the
    others are ("found", jobs) and ("to_the_end", job, before), answered by (True, answer), or
    (False, the sentence of a UserError, or None for a fault of the program)."""
    # a service manager sends it to all processes; the page ends its own when their batches are done
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Connection(handle) as page, suppress(EOFError, OSError):
        try:
            search = BatchSearch.of(page.recv(), lambda sentence: say(sentence, err=True))
        except UserError as error:
            page.send(str(error))
            return
        threading.Thread(target=_refresh, args=(search,), daemon=True).start()
        gc.freeze()  # what is there now stays, and need not be looked through again
        page.send(None)
        while True:
            name, *given = page.recv()
            page.send(_answer(search, name, given))


def _answer(search: BatchSearch, name: str, given: list[Any]) -> tuple[bool, Any]:
    try:
        return True, getattr(search, name)(*given)
    except UserError as error:
        return False, str(error)
    except Exception as error:
        say_traceback(error)
        return False, None


def _refresh(search: BatchSearch) -> None:
    while True:
        time.sleep(REFRESH_SECONDS)
        try:
            search.releases.refresh()
        except Exception as error:  # or tags would stay as they are, in silence
            say_traceback(error)


if __name__ == "__main__":
    main(int(sys.argv[1]))

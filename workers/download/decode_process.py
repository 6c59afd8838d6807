"""A decoder process: reads bodies on standard input, writes their thumbnails on its output.

    python -m pairmill.workers.download.decode_process SHORT_SIDE MAX_BYTES MEMORY

One at a time, as ``thumbnail`` lays it out: a length and the body in; the answer and the thumbnail
out. Its memory is
limited, so that a hostile image costs this process and not the node.
"""

import resource
import signal
import sys

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import decode
from pairmill.workers.download.thumbnail import ANSWER, LENGTH, Decoded, ThumbnailSpec

# bytes of address space beside the image's own: Python, Pillow and its libraries map 300 MB
BESIDE = 640 * 1024**2


def main() -> None:
    spec = ThumbnailSpec(*map(int, sys.argv[1:4]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    most = BESIDE + 4 * spec.memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    # an end of input is the worker's end, orderly or not
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        body = requests.read(LENGTH.unpack(head)[0])
        try:
            d = decode(body, spec)
        except MemoryError:
            d = Decoded(Outcome.TOO_MANY_PIXELS)
        del body
        size = len(d.thumbnail)
        answers.write(
            ANSWER.pack(d.outcome, d.width, d.height, d.dhash, d.md5, d.sha256, size) + d.thumbnail
        )
        answers.flush()


if __name__ == "__main__":
    main()

"""A decoder process: reads bodies on standard input, writes what became of them on its output.

One at a time: 4 bytes of length and the body in; ANSWER and the thumbnail out. Its memory is
limited, so that a hostile image costs this process and not the node.
"""

import resource
import signal
import struct
import sys

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import Decoded, decode

LENGTH = struct.Struct(">I")
ANSWER = struct.Struct(">hIIqI")  # outcome, width, height, dhash, length of the thumbnail
MAX_ADDRESS_SPACE = 1024**3  # bytes; Python and Pillow with 16 megapixels take under 400 MB of it


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    # an end of input is the worker's end, orderly or not
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        body = requests.read(LENGTH.unpack(head)[0])
        try:
            d = decode(body)
        except MemoryError:
            d = Decoded(Outcome.TOO_MANY_PIXELS)
        answers.write(ANSWER.pack(d.outcome, d.width, d.height, d.dhash, len(d.thumbnail)))
        answers.write(d.thumbnail)
        answers.flush()


if __name__ == "__main__":
    main()

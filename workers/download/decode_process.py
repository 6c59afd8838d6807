"""A decoder process: reads bodies on standard input, writes their thumbnails on its output.

    python -m pairmill.workers.download.decode_process SPEC

SPEC is the spec's class and its fields as JSON. One at a time, as ``thumbnail`` lays it out:
lengths, boxes and the body in; the answer and the thumbnail out. Its memory is limited, so that a
hostile image costs this process and not the node."""

import json
import resource
import signal
import sys

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import decode
from pairmill.workers.download.rendition import RenditionSpec
from pairmill.workers.download.thumbnail import ANSWER, BOX, REQUEST, Decoded, ThumbnailSpec

# bytes of address space beside the image's own: Python, Pillow and its libraries map 300 MB
BESIDE = 640 * 1024**2


def main() -> None:
    kind, fields = json.loads(sys.argv[1])
    spec = (RenditionSpec if kind == RenditionSpec.__name__ else ThumbnailSpec)(**fields)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    most = BESIDE + 4 * spec.memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    # an end of input is the worker's end, orderly or not
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        size, count = REQUEST.unpack(head)
        boxes = tuple(BOX.iter_unpack(requests.read(BOX.size * count)))
        body = requests.read(size)
        try:
            d = decode(body, spec, boxes)
        except MemoryError:
            d = Decoded(Outcome.TOO_MANY_PIXELS)
        del body
        form, exif = d.format.encode(), (d.exif or "").encode()
        lengths = len(d.thumbnail), len(form), len(exif)
        answers.write(
            ANSWER.pack(
                d.outcome, d.width, d.height, d.dhash, d.md5, d.sha1, d.sha256, d.pdq, *lengths
            )
            + d.thumbnail + form + exif
        )  # fmt: skip
        answers.flush()


if __name__ == "__main__":
    main()

"""Other projects' test WARCs: our records beside warcio's.

    python tests/suites/warc_files.py PATH...    # folders, which are searched; clones of any of
        # webrecorder/warcio, chatnoir-eu/chatnoir-resiliparse (FastWARC's), iipc/jwarc,
        # netarchivesuite/jwat, iipc/webarchive-commons, chfoo/warcat

Compared are the number of records and each block's bytes. ARC files and lz4 are not read here. An
unlisted disagreement, or a listed one that is none, is exit code 1.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed

from pairmill.workers.extract.records import WarcRecords

# file -> why ours is another
LENGTH = "a Content-Length that is missing or wrong: that record is lost, and the next is found"
CUT = "the file ends within a record: a part of a block is no JSON, so it is not given"
LISTED = {
    "clipped.warc.gz": CUT,
    "example-trunc.warc": CUT,
    "link-extraction-test.warc": LENGTH,
    "invalid-warcfile-fields-empty.warc": LENGTH,
    "invalid-warcfile-fields-invalidformat.warc": LENGTH,
    "invalid-warcfile-fields-missing.warc": LENGTH,
    "invalid-warcfile-lonely-continuation.warc": LENGTH,
    "invalid-warcfile-lonely-monkeys.warc": LENGTH,
    "invalid-warcfile-lonely-request-response-resource-conversion.warc": LENGTH,
    "invalid-warcfile-lonely-revisit.warc": LENGTH,
    "invalid-warcfile-lonely-warcinfo-metadata.warc": LENGTH,
    "example-wrong-chunks.warc.gz": LENGTH,
    "invalid-warcfile-record-then-garbage.warc": "the same record; the garbage is counted, no error",
    "example-bad-non-chunked.warc.gz": "one gzip member for all records: read here",
    "example-bad.warc.gz.bad": "one gzip member for all records: read here",
}
ENDINGS = (".warc", ".warc.gz", ".warc.gz.bad")


def theirs(data: bytes) -> tuple[list[bytes], str]:
    """The blocks up to warcio's first error, and the error."""
    blocks: list[bytes] = []
    try:
        for record in ArchiveIterator(io.BytesIO(data), no_record_parse=True):
            blocks.append(record.raw_stream.read())
    except (ArchiveLoadFailed, EOFError, ValueError) as error:
        return blocks, f"{type(error).__name__}: {' '.join(str(error).split())[:60]}"
    return blocks, ""


def ours(data: bytes) -> tuple[list[bytes], str]:
    """The blocks, and what was lost."""
    records = WarcRecords(io.BytesIO(data))
    found = list(records)
    lost = [record.bad for record in found if record.bad]
    if records.ended_early:
        lost.append(records.ended_early)
    return [record.body for record in found if not record.bad], ", ".join(lost)


def files(folders: list[str]) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(
            path
            for path in Path(folder).rglob("*")
            if path.is_file() and path.name.endswith(ENDINGS)
        )


def main() -> None:
    seen: set[bytes] = set()
    same = records = 0
    others: set[str] = set()
    for path in files(sys.argv[1:]):
        data = path.read_bytes()
        if data in seen:
            continue
        seen.add(data)
        (their, error), (our, lost) = theirs(data), ours(data)
        records += len(our)
        if their == our and not error:
            same += 1
            continue
        others.add(path.name)
        print(
            f"{path.name}: warcio {len(their)} {error or 'records'}, ours {len(our)}"
            f" {lost or 'records'}: {LISTED.get(path.name, 'NOT LISTED')}"
        )
    print(f"{same} of {len(seen)} files as warcio, {records} records; {len(seen) - same} others")
    sys.exit(not others <= LISTED.keys())


if __name__ == "__main__":
    main()

"""llhttp's own responses over the downloader's reader.

    python tests/suites/llhttp.py PATH    # test/response of a checkout of nodejs/llhttp

Of each case in its .md files the first message counts: whether llhttp takes it, and the body that it
finds. Ours is more lenient by intent (docs/http.md): each case that it takes and llhttp does not is
listed with its reason. An unlisted disagreement, or a listed one that is none, is exit code 1.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from listed import report

from pairmill.workers.download.fetcher import FetchFailed
from pairmill.workers.download.response import Response

CASE = re.compile(
    r"^#+ (?P<name>[^\n]*)\n(?:(?!^#).)*?<!-- meta=(?P<meta>[^\n]*) -->\n"
    r"```http\n(?P<http>.*?)\n```(?:(?!^#).)*?```log\n(?P<log>.*?)\n```",
    re.M | re.S,
)
BODY = re.compile(r"off=(\d+) len=(\d+) span\[body\]")
# case -> why ours is another
VERSION = "any version is one of HTTP/1, as for Chromium"
CR = "a CR alone is a space (RFC 9112, 2.2)"
LF = "LF ends a line (RFC 9112, 2.2)"
CHUNKED = "chunked wherever it stands, as for curl and Chromium: then these are bad chunks"
LISTED = {
    "connection: HTTP 101 response with Upgrade and Content-Length header": "never asked for",
    "connection: HTTP 101 response with Upgrade and Transfer-Encoding header": "never asked for",
    "invalid: Extra digit in HTTP major version": VERSION,
    "invalid: Extra digit in HTTP major version #2": VERSION,
    "invalid: Extra digit in HTTP minor version": VERSION,
    "invalid: Invalid HTTP version": VERSION,
    "invalid: Tab after HTTP version": "white space is white space, as for urllib",
    "invalid: CR before response and tab after HTTP version": "the same",
    "invalid: Extra space between HTTP version and status code": "the same, as for curl",
    "invalid: Headers separated by CR": CR,
    "invalid: Bare CR after response line": CR,
    "invalid: Bare CR followed by CR after response line": CR,
    "invalid: Only LFs present and no body": LF,
    "invalid: Only LFs present": LF,
    "sample: No carriage ret": LF,
    "sample: RTSP response": "another protocol",
    "sample: ICE response": "another protocol",
    "sample: Spaces in header name": "an odd name is a name, as for curl",
    "transfer-encoding: Trailing space on chunked body": "padding, as for curl and browsers",
    "transfer-encoding: `chunked` before other transfer-encoding": CHUNKED,
    "transfer-encoding: multiple transfer-encoding where chunked is not the last one": CHUNKED,
    "transfer-encoding: No extension after semicolon": "extensions say nothing",
    "transfer-encoding: Unbalanced chunk extensions quoting": "extensions say nothing",
}


def raw(text: str) -> bytes:
    """The bytes of a case, as llhttp's own runner makes them."""
    text = re.sub(r"\\\n", "", text).replace("\n", "\r\n")
    for escape, character in (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ("\\f", "\f")):
        text = text.replace(escape, character)
    return text.encode("utf-8")


def theirs(log: str, data: bytes) -> str:
    """What llhttp made of the first message, interim ones left out."""
    body, status = b"", 0
    for line in log.splitlines():
        if found := BODY.match(line):
            body += data[int(found[1]) : int(found[1]) + int(found[2])]
        elif found := re.search(r"headers complete.* status=(\d+)", line):
            status = int(found[1])
        elif "message complete" in line and (status == 101 or status >= 200):
            break
        elif "error" in line and "pause" not in line:
            return "refused"
    return shown(status, body)


def ours(data: bytes) -> str:
    response = Response(1 << 20)
    try:
        response.feed(data)
        if not response.head:
            return "refused"
        answer = response.answer()  # of what has come: the runner does not say that it is the end
    except FetchFailed:
        return "refused"
    return shown(answer.status, answer.body)


def shown(status: int, body: bytes) -> str:
    """The body of another status is never kept."""
    return f"{status} {body!r}" if 200 <= status < 300 else f"{status}"


def cases(folder: Path) -> Iterator[tuple[str, str, str]]:
    for page in sorted(folder.glob("*.md")):
        for case in CASE.finditer(page.read_text("utf-8")):
            if '"skipBody"' not in case["meta"]:  # the answer to a HEAD, which is never asked
                data = raw(case["http"])
                name = f"{page.stem}: {case['name']}"
                yield name, theirs(case["log"], data), ours(data)


def main(path: Path) -> int:
    found = list(cases(path))
    wrong = {name: f"llhttp {their}, ours {our}" for name, their, our in found if their != our}
    return report(path, len(found) - len(wrong), len(found), wrong, LISTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

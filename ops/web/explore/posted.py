"""The fields of a posted form, kept in memory: a visitor's file is never written to a disk."""

from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from pairmill.ops.errors import UserError
from pairmill.ops.web.limits import Gate

MOST_FIELDS = 30
MOST_FIELD = 64 * 1024  # bytes of a field that is no file


@dataclass(frozen=True)
class Posted:
    """fields: by name, the last of each, "" for those that are not there. files: their bytes, those
    that have any; the names that they had are of no use here, and kept nowhere."""

    fields: dict[str, str]
    files: dict[str, bytes]

    def field(self, name: str) -> str:
        return self.fields.get(name, "").strip()


UPLOADS = Gate(16, 16)  # at once: with 11 MB each, 176 MB of bodies


class _InMemory(MultiPartParser):
    """Parts of files stay in memory: the site's limit of a body bounds them."""

    spool_max_size = 1 << 30


async def posted(request: Request) -> Posted:
    """Read a form, of files or not. Raises UserError for a body that is none, HTTPException 413 for
    one that is too large, and 503 where too many come at once."""
    async with UPLOADS:
        form = await _form(request)
        fields, files = {}, {}
        try:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if body := await value.read():
                        files[name] = body
                else:
                    fields[name] = value
        finally:
            await form.close()
    return Posted(fields, files)


async def _form(request: Request) -> FormData:
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            parser = _InMemory(
                request.headers, request.stream(),
                max_files=2, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD,
            )  # fmt: skip
            return await parser.parse()
        return await request.form(max_fields=MOST_FIELDS)
    except ClientDisconnect:
        raise UserError("the request ended before its body did") from None
    except MultiPartException as error:
        raise UserError(f"the form cannot be read: {error.message}") from None

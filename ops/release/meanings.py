"""The meaning of a release's columns, whatever its layout calls them.

The names are those of LAION-400M, -5B, -Aesthetics, Re-LAION, LAION-COCO and DataComp; a column of
none of them is a tagger's, of a recipe's own name.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """role: what the values are, whichever the name; see ``ROLES``. description: for a card."""

    role: str
    description: str


# what check.py and statistics.py do with a column depends on this alone
ROLES = (
    "id", "url", "text", "width", "height", "licence", "language", "label", "similarity",
    "row_hash", "md5", "sha256", "probability", "aesthetic", "boxes", "captions", "similarities",
    "tag",
)  # fmt: skip
_WIDTH = Meaning("width", "Width of the image as downloaded, in pixels.")
_HEIGHT = Meaning("height", "Height of the image as downloaded, in pixels.")
_TEXT = Meaning("text", "Alt text of the image in the page, one line.")
_AESTHETIC = Meaning("aesthetic", "Aesthetic score, about 1 to 10: what raters would give.")
_MEANINGS = {
    "sample_id": Meaning("id", "Number of the pair: the same in every release of one database."),
    "uid": Meaning("id", "Number of the pair, 32 hexadecimal digits."),
    "url": Meaning("url", "Address of the image."),
    "text": _TEXT,
    "caption": _TEXT,
    "width": _WIDTH,
    "original_width": _WIDTH,
    "height": _HEIGHT,
    "original_height": _HEIGHT,
    "license": Meaning("licence", "Licence that the page names by rel=license; null: none."),
    "language": Meaning("language", "Language of the text, ISO 639; nolang: none was found."),
    "nsfw": Meaning("label", "Label of the NSFW tagger."),
    "similarity": Meaning("similarity", "Cosine similarity of image and text by the model."),
    "clip_b32_similarity_score": Meaning("similarity", "Cosine similarity by ViT-B/32."),
    "clip_l14_similarity_score": Meaning("similarity", "Cosine similarity by ViT-L/14."),
    "hash": Meaning(
        "row_hash", "First half of MurmurHash3 x64 of URL and text: a key of the row, of no image."
    ),
    "md5": Meaning("md5", "MD5 of the image's file as downloaded, hexadecimal."),
    "sha256": Meaning("sha256", "SHA-256 of the image's file as downloaded, hexadecimal."),
    "punsafe": Meaning("probability", "Probability that the image is unsafe for work."),
    "pwatermark": Meaning("probability", "Probability that the image has a watermark."),
    "aesthetic": _AESTHETIC,
    "aesthetic_score": _AESTHETIC,
    "face_bboxes": Meaning("boxes", "Boxes of faces, left, top, right, bottom; empty: not looked."),
    "top_caption": Meaning("captions", "Best of the generated captions."),
    "all_captions": Meaning("captions", "Generated captions."),
    "all_similarities": Meaning("similarities", "Similarity of each generated caption."),
}


def meaning(column: str) -> Meaning:
    """The meaning of a column, by its name in any case."""
    return _MEANINGS.get(column.lower(), Meaning("tag", "Value of a tagger that the recipe names."))

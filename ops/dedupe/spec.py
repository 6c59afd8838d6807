"""A recipe's table ``[dedupe]``: which rows are the same, and which of them stays."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# A description ends the sentence of the error: "dedupe.dhash_radius must be …".
Exact = Literal["url", "bytes", "url_text"]
Cosine = Annotated[float, Meta(ge=0, le=1, description="between 0 and 1")]
Share = Annotated[float, Meta(gt=0, le=1, description="above 0, and 1 at most")]
Radius = Annotated[int, Meta(ge=-1, le=4, description="bits, from 0 to 4; -1: none")]
Count = Annotated[int, Meta(ge=0, description="of type int, 0 or more")]

METHODS = (
    "url", "bytes", "url_text", "dhash", "decontamination", "text", "near_text", "semantic",
)  # fmt: skip


class Dedupe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as a duplicate. The methods run in the order of METHODS, each over what those
    before left.

    representative: the row of a group that stays: the oldest (lowest SAMPLE_ID), the largest (in
    pixels) or that of the highest similarity; of equals the oldest.
    exact: ``url`` (normalised), ``bytes`` (sha256), ``url_text`` (both, as they are).
    dhash_radius: bits in which two images' dHashes may differ; -1: dHash is not compared.
    low_entropy: hashes with fewer ones or fewer zeros than this are of flat images, and say
    nothing: dhash leaves them to the other methods.
    min_cosine: of the stored image embeddings of two rows whose dHashes are near; a row
    without an embedding is then nobody's duplicate by dHash. 0: dHash alone decides, as it always
    does of what goes with a removed row, whose embedding its removal deleted.
    text: ``exact`` after NFKC, case folding and white space; ``near``: also a Jaccard similarity of
    min_jaccard or more over character 4-grams. Texts of fewer than min_text_length characters
    are compared by neither.
    semantic_cosine: of two image embeddings in the same of semantic_clusters clusters; 0: not
    compared. semantic_clusters 0: about the square root of the rows.
    decontaminate: evaluation sets as ``pairmill dedupe evaluation`` writes them, or folders of
    images (by dHash alone); rows near one of their images go, with their duplicates.
    decontaminate_radius and decontaminate_cosine are as the two above; either signal is
    enough, the cosine where the set has embeddings of the recipe's model.
    """

    representative: Annotated[
        Literal["oldest", "largest", "highest_similarity"],
        Meta(description="'oldest', 'largest' or 'highest_similarity'"),
    ] = "oldest"
    exact: Annotated[list[Exact], Meta(description="a list of: 'url', 'bytes', 'url_text'")] = (
        msgspec.field(default_factory=lambda: ["url", "bytes"])
    )
    dhash_radius: Radius = -1
    low_entropy: Annotated[int, Meta(ge=0, le=32, description="bits, from 0 to 32")] = 8
    min_cosine: Cosine = 0.0
    text: Annotated[
        Literal["none", "exact", "near"], Meta(description="'none', 'exact' or 'near'")
    ] = "none"
    min_jaccard: Share = 0.8
    min_text_length: Count = 25
    semantic_cosine: Cosine = 0.0
    semantic_clusters: Count = 0
    decontaminate: Annotated[list[str], Meta(description="a list of files or folders")] = []
    decontaminate_radius: Radius = 3
    decontaminate_cosine: Cosine = 0.0

    @property
    def methods(self) -> list[str]:
        """The methods that this asks for, in the order in which they run."""
        wanted = set(self.exact)
        for method, asked in (
            ("dhash", self.dhash_radius >= 0),
            ("decontamination", bool(self.decontaminate)),
            ("text", self.text != "none"),
            ("near_text", self.text == "near"),
            ("semantic", self.semantic_cosine > 0),
        ):
            if asked:
                wanted.add(method)  # type: ignore[arg-type]
        return [method for method in METHODS if method in wanted]

    @property
    def needs_embeddings(self) -> bool:
        return (
            (self.dhash_radius >= 0 and self.min_cosine > 0)
            or self.semantic_cosine > 0
            or (bool(self.decontaminate) and self.decontaminate_cosine > 0)
        )

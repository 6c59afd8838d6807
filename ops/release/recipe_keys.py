"""The types of a recipe's values, and its tables. A description ends the sentence of an error:
"min_bytes must be …"."""

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from pairmill.schema.outcomes import LANGUAGE_DETECTORS, LanguageDetectorName

Similarity = Annotated[float, Meta(ge=-1, le=1, description="between -1 and 1")]
Probability = Annotated[float, Meta(ge=0, le=1, description="between 0 and 1")]
Fraction = Annotated[float, Meta(gt=0, le=1, description="above 0 and at most 1")]
Count = Annotated[int, Meta(ge=0, description="of type int, 0 or more")]
AtLeastOne = Annotated[int, Meta(ge=1, description="of type int, 1 or more")]
Aspect = Annotated[float, Meta(ge=1, description="1 or more: the longer side over the shorter")]
TextLength = Annotated[
    Literal["characters", "by_script"], Meta(description="'characters' or 'by_script'")
]
Languages = Annotated[list[str], Meta(description="a list of codes, like ['en', 'nolang']")]
Detectors = Annotated[
    list[LanguageDetectorName], Meta(description=f"a list of: {', '.join(LANGUAGE_DETECTORS)}")
]
Tagger = Annotated[str, Meta(min_length=1, description="a tagger's name")]
ModelName = Annotated[
    str, Meta(min_length=1, description="a model's name and weights, like 'ViT-B-32 openai'")
]
# a tag is a float32
Tag = Annotated[float, Meta(ge=-3.4e38, le=3.4e38, description="a number that a tag can be")]
PiiKind = Literal["email", "phone", "iban", "card", "api_key"]
PiiKinds = Annotated[list[PiiKind], Meta(description=f"a list of: {', '.join(get_args(PiiKind))}")]
# of Creative Commons' URLs: /licenses/by-sa/4.0/, /publicdomain/zero/1.0/
Licences = Annotated[
    list[Annotated[str, Meta(pattern=r"\A[a-z]+[a-z+-]*(/[0-9]+(\.[0-9]+)?)?\Z")]],
    Meta(description="a list of Creative Commons licences, like ['zero', 'by', 'by-sa/4.0']"),
]
Sources = Annotated[list[str], Meta(description="a list of sources of removals")]
LinkKindName = Literal["image", "audio", "video", "document"]
LinkKinds = Annotated[
    list[LinkKindName],
    Meta(min_length=1, description=f"a list of: {', '.join(get_args(LinkKindName))}"),
]
Takes = Annotated[Literal["images", "links"], Meta(description="'images' or 'links'")]
LayoutName = Literal[
    "pairmill", "laion-400m", "laion-joined", "laion-aesthetics-v2", "re-laion", "datacomp",
    "laion-coco",
]  # fmt: skip
LAYOUTS: tuple[str, ...] = get_args(LayoutName)
Layouts = Annotated[LayoutName, Meta(description=f"one of: {', '.join(LAYOUTS)}")]
FileName = Annotated[str, Meta(min_length=1, description="a file's path")]
Digest = Annotated[
    str, Meta(pattern=r"\A([0-9a-f]{64})?\Z", description="a sha256, 64 hexadecimal digits")
]


class RecipeFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that a recipe reads: its path, from the recipe's own folder (of a recipe that comes
    with Pairmill: from the working directory), and its sha256, which a manifest always has."""

    file: FileName
    sha256: Digest = ""


RecipeFiles = Annotated[
    list[RecipeFile], Meta(description="a list of files, like [{ file = 'words.txt' }]")
]


class TextSafety(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """scores: the manifest.json of ``pairmill text-safety score``, beside its files. max: the
    highest probability that is kept, by the classifier's label."""

    scores: RecipeFile
    max: dict[str, Probability]


class Clusters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """centroids: float[k, dims], .npy, of the recipe's model. near: float[n, dims], the embeddings
    of which the nearest centroids are wanted; or ids: their numbers, integers."""

    centroids: RecipeFile
    near: RecipeFile | None = None
    ids: RecipeFile | None = None

"""Drawn images with captions that say what is on them: the demo's photographs, and what its
model is trained on. Everything follows from a seed."""

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

COLOURS = {
    "red": (214, 40, 40), "green": (46, 140, 60), "blue": (40, 80, 200), "yellow": (240, 205, 40),
    "black": (25, 25, 25), "white": (245, 245, 245), "purple": (130, 50, 160),
    "orange": (240, 130, 30),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COUNTS = ("one", "two", "three")
PHRASES = (
    "a picture of {count} {colour} {shape} on {a} {ground} background",
    "{count} {colour} {shape} in front of {a} {ground} wall",
    "this drawing shows {count} {colour} {shape} on {ground} paper",
    "the children painted {count} {colour} {shape} on {a} {ground} wall",
)
FOREIGN = {
    "de": "das Bild zeigt {count} Formen vor einem Hintergrund in der Farbe {ground}",
    "fr": "cette image montre {count} formes sur un fond de couleur {ground}",
    "es": "esta imagen muestra {count} formas sobre un fondo de color {ground}",
}
WORDS = {
    "de": {"one": "eine der", "two": "zwei", "three": "drei", "red": "Rot", "green": "Grün",
           "blue": "Blau", "yellow": "Gelb", "black": "Schwarz", "white": "Weiß",
           "purple": "Lila", "orange": "Orange"},
    "fr": {"one": "une des", "two": "deux", "three": "trois", "red": "rouge", "green": "verte",
           "blue": "bleue", "yellow": "jaune", "black": "noire", "white": "blanche",
           "purple": "violette", "orange": "orange"},
    "es": {"one": "una de las", "two": "dos", "three": "tres", "red": "rojo", "green": "verde",
           "blue": "azul", "yellow": "amarillo", "black": "negro", "white": "blanco",
           "purple": "morado", "orange": "naranja"},
}  # fmt: skip


@dataclass(frozen=True)
class Attributes:
    """What is on a drawing: count, colour and shape of the things, and the background's colour."""

    count: str
    colour: str
    shape: str
    ground: str


def attributes(seed: int) -> Attributes:
    rng = random.Random(f"attributes {seed}")
    colour, ground = rng.sample(list(COLOURS), 2)
    return Attributes(rng.choice(COUNTS), colour, rng.choice(SHAPES), ground)


def caption(seed: int, what: Attributes) -> str:
    """An English sentence that says what is on the drawing; the seed chooses the wording."""
    plural = "es" if what.shape == "cross" else "s"
    shape = what.shape if what.count == "one" else what.shape + plural
    phrase = random.Random(f"phrase {seed}").choice(PHRASES)
    a = "an" if what.ground == "orange" else "a"
    return phrase.format(count=what.count, colour=what.colour, shape=shape, ground=what.ground, a=a)


def caption_in(language: str, what: Attributes) -> str:
    """A sentence about the drawing in de, fr or es."""
    words = WORDS[language]
    return FOREIGN[language].format(count=words[what.count], ground=words[what.ground])


def draw(seed: int, size: tuple[int, int] = (320, 240)) -> tuple[Image.Image, str, Attributes]:
    """A drawing (RGB, width and height as in ``size``), its caption, and its attributes."""
    what = attributes(seed)
    rng = random.Random(f"drawing {seed}")
    image = Image.new("RGB", size, COLOURS[what.ground])
    pen = ImageDraw.Draw(image)
    width, height = size
    count = COUNTS.index(what.count) + 1
    for i in range(count):
        radius = min(width / count, height) * rng.uniform(0.28, 0.4)
        x = width * (i + 0.5) / count + rng.uniform(-0.06, 0.06) * width / count
        y = height / 2 + rng.uniform(-0.1, 0.1) * height
        _shape(pen, what.shape, x, y, radius, COLOURS[what.colour], COLOURS[what.ground])
    return _grain(image, rng), caption(seed, what), what


def photo_like(seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """Soft coloured texture whose JPEG is as large as a photograph's; it shows nothing."""
    rng = random.Random(f"photo {seed}")
    small = Image.frombytes("RGB", (24, 18), rng.randbytes(24 * 18 * 3))
    return _grain(small.resize(size, Image.Resampling.BICUBIC), rng)


def _grain(image: Image.Image, rng: random.Random) -> Image.Image:
    """Paper's grain: without it a drawing's JPEG would stay below the 5,000 bytes that
    recipes ask for."""
    width, height = image.size
    noise = Image.frombytes("L", (width, height), rng.randbytes(width * height))
    grain = Image.merge("RGB", [noise.filter(ImageFilter.GaussianBlur(0.7))] * 3)
    return Image.blend(image, grain, 0.12)


def _shape(
    pen: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float,
    fill: tuple[int, int, int], ground: tuple[int, int, int],
) -> None:  # fmt: skip
    box = (x - r, y - r, x + r, y + r)
    if shape == "circle":
        pen.ellipse(box, fill=fill)
    elif shape == "square":
        pen.rectangle(box, fill=fill)
    elif shape == "triangle":
        pen.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=fill)
    elif shape == "star":
        pen.regular_polygon((x, y, r), 3, fill=fill)
        pen.regular_polygon((x, y, r), 3, rotation=60, fill=fill)
    elif shape == "cross":
        third = r / 3
        pen.rectangle((x - third, y - r, x + third, y + r), fill=fill)
        pen.rectangle((x - r, y - third, x + r, y + third), fill=fill)
    else:
        pen.ellipse(box, fill=fill)
        pen.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=ground)

"""Drawings and their captions: from a seed, true to each other, as large as photographs."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from pairmill.ops.demo.drawings import (
    COLOURS,
    COUNTS,
    SHAPES,
    attributes,
    caption,
    caption_in,
    draw,
    photo_like,
)

SEEDS = range(200)


def jpeg_bytes(image: Image.Image) -> int:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=75)
    return out.tell()


def test_a_seed_gives_the_same_drawing_and_another_seed_another() -> None:
    for seed in range(10):
        first, second = draw(seed, (120, 90)), draw(seed, (120, 90))
        assert first[0].tobytes() == second[0].tobytes()
        assert first[1:] == second[1:]
    assert len({draw(seed, (60, 45))[0].tobytes() for seed in SEEDS}) == len(SEEDS)
    assert photo_like(1, (64, 48)).tobytes() == photo_like(1, (64, 48)).tobytes()
    assert photo_like(1, (64, 48)).tobytes() != photo_like(2, (64, 48)).tobytes()


def test_drawings_are_varied() -> None:
    what = [attributes(seed) for seed in SEEDS]
    assert {a.colour for a in what} == {a.ground for a in what} == set(COLOURS)
    assert {a.shape for a in what} == set(SHAPES)
    assert {a.count for a in what} == set(COUNTS)
    assert len({caption(seed, what[0]) for seed in SEEDS}) == 4  # wordings
    assert all(a.colour != a.ground for a in what)  # or nothing could be seen


def test_captions_say_what_is_drawn() -> None:
    for seed in SEEDS:
        text, what = draw(seed, (40, 30))[1:]
        assert what == attributes(seed)
        words = text.split()
        assert what.count in words
        assert what.colour in words
        assert what.ground in words
        plural = what.shape + ("es" if what.shape == "cross" else "s")
        assert (what.shape if what.count == "one" else plural) in words
    ring = replace(attributes(0), count="two", colour="red", shape="ring", ground="orange")
    assert "two red rings" in caption(0, ring)
    assert " a orange " not in " ".join(caption(seed, ring) for seed in SEEDS)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_drawn_in_their_colours(shape: str) -> None:
    seed = next(s for s in range(1000) if attributes(s).shape == shape)
    image, _, what = draw(seed, (400, 300))
    pixels = [image.getpixel((x, y)) for x in range(0, 400, 4) for y in range(0, 300, 4)]
    near = {
        name: sum(distance(pixel, COLOURS[name]) < 60 for pixel in pixels) / len(pixels)
        for name in (what.colour, what.ground)
    }
    assert near[what.colour] > 0.02
    assert near[what.ground] > 0.2
    assert near[what.colour] + near[what.ground] > 0.9


def distance(pixel: object, colour: tuple[int, int, int]) -> int:
    assert isinstance(pixel, tuple)
    return max(abs(a - b) for a, b in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("size", [(400, 300), (640, 480)])
def test_files_are_as_large_as_recipes_ask_for(size: tuple[int, int]) -> None:
    for seed in range(20):
        image = draw(seed, size)[0]
        assert (image.size, image.mode) == (size, "RGB")
        assert jpeg_bytes(image) >= 5000
        photo = photo_like(seed, size)
        assert (photo.size, photo.mode) == (size, "RGB")
        assert jpeg_bytes(photo) >= 5000


def test_foreign_captions_name_count_and_ground() -> None:
    what = replace(attributes(0), count="three", ground="green")
    assert caption_in("de", what).count("drei") == caption_in("de", what).count("Grün") == 1
    assert caption_in("fr", what).count("trois") == caption_in("fr", what).count("verte") == 1
    assert caption_in("es", what).count("tres") == caption_in("es", what).count("verde") == 1

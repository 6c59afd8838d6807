"""A WAT file of a realistic shape, of any size, from a seed.

Measured: CC-MAIN-2022-40 has about 45,000 pages in 313 MB of gzip, 16.3 ``IMG@/src`` links a
page, 55 % of them with alt; a page has three records (request, response, metadata); gzip takes
Common Crawl's pages in the test data to a quarter. Assumed: 180 links and 15 meta elements a
page; 1.5 pages of a site in a file; a sixth of the images are the site's own furniture, the
same on each of its pages; a fifth of the alts are a handful of words that all the web repeats;
the rest mixes 16 languages of 9 scripts, half of them English.
"""

import gzip
import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

PIECE = 500  # pages that one process makes at once: the file is the same on any number of cores
IMAGES = 16
OTHER_LINKS = 164
COMMON_ALTS = ("logo", "Facebook", "Twitter", "image", "Logo", "Instagram", "avatar", "Read more")

_WORDS = {
    "en": "the old house river garden summer of with red chair kitchen view from children playing"
    " beach winter black leather shoes women new collection best price hotel room recipe chocolate",
    "de": "das alte Haus am Rande der Stadt mit Blick auf den Fluss im Sommer Küche Garten Schuhe für",
    "fr": "une vieille photo de la place du village avec les enfants dans le jardin été maison cuisine",
    "es": "la playa de la ciudad en invierno con los niños una casa vieja receta zapatos nuevos para",
    "pt": "uma foto da cozinha da casa com vista para o rio no verão sapatos novos para crianças",
    "it": "la vecchia casa del paese con vista sul fiume ricetta della nonna scarpe nuove per bambini",
    "nl": "het oude huis aan de rivier met uitzicht op de tuin in de zomer schoenen voor kinderen",
    "pl": "zdjęcie starego domu w górach z widokiem na rzekę kuchnia ogród latem buty dla dzieci",
    "tr": "eski evin bahçesinde oynayan çocuklar için yeni ayakkabı yaz kış mutfak nehir manzarası",
    "ru": "красивый вид на море и горы старый дом у реки летом новая обувь для детей рецепт",
    "el": "παλιά φωτογραφία από την πόλη το καλοκαίρι σπίτι με θέα στη θάλασσα κήπος παιδιά",
    "ar": "صورة قديمة من المدينة البيت على النهر في الصيف أحذية جديدة للأطفال حديقة المطبخ",
    "zh": "美丽的 花园 和 老房子 的 照片 夏天 河边 新鞋 儿童 厨房 海滩 冬天 城市",
    "ja": "美しい 庭と 古い家の 写真 夏の 海辺で 遊ぶ 子供たち 新しい 靴 台所 冬の 町",
    "ko": "아름다운 정원과 오래된 집의 사진 여름 강가에서 노는 아이들 새 신발 부엌 겨울",
    "hi": "पुराने घर की सुंदर तस्वीर गर्मियों में नदी के किनारे खेलते बच्चे नए जूते रसोई बगीचा",
}
LANGUAGES = tuple((name, words.split()) for name, words in _WORDS.items())
_ENGLISH = LANGUAGES[0][1]
_VERSIONED = ("jpg", "jpg", "jpg", "png", "jpeg", "webp", "gif", "svg")


def wat(pages: int, seed: int = 1) -> bytes:
    """A gzipped WAT file (one member a record) of so many pages, made by all cores."""
    pieces = [(first, min(first + PIECE, pages), pages, seed) for first in range(0, pages, PIECE)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return b"".join(pool.map(_piece, *zip(*pieces, strict=True)))


def _piece(first: int, end: int, pages: int, seed: int) -> bytes:
    rng = random.Random(f"{seed} {first}")
    return b"".join(
        member for number in range(first, end) for member in _members(rng, number, pages)
    )


def _members(rng: random.Random, number: int, pages: int) -> Iterator[bytes]:
    site = rng.randrange(pages * 2 // 3 + 1)
    host = f"www.{_ENGLISH[site % len(_ENGLISH)]}-{site}.example"
    uri = (
        f"https://{host}/{rng.choice(_ENGLISH)}/{rng.randrange(10**6)}-{rng.choice(_ENGLISH)}.html"
    )
    words = _ENGLISH if site % 2 else LANGUAGES[site // 2 % len(LANGUAGES)][1]
    html = {
        "Head": {
            "Title": _text(rng, words, 7),
            "Metas": [{"name": name, "content": _text(rng, words, 9)} for name in
                      ("viewport", "description", "og:title", "og:description", "twitter:card", "keywords", "author", "robots", "generator",
                       "og:url", "og:image", "og:site_name", "theme-color", "fb:app_id", "locale")],
            "Link": [{"path": "LINK@/href", "url": f"/assets/{n}-{rng.randrange(16**8):08x}.css",
                      "rel": "stylesheet", "type": "text/css"} for n in range(8)],
        },
        "Links": _links(rng, host, site, words),
    }  # fmt: skip
    response = {
        "Response-Message": {"Status": "200", "Version": "HTTP/1.1", "Reason": "OK"},
        "Headers-Length": str(rng.randrange(300, 900)),
        "Headers": {
            "Content-Type": "text/html; charset=UTF-8", "Server": "nginx", "Connection": "close",
            "Date": "Mon, 26 Sep 2022 10:11:12 GMT", "Vary": ["Accept-Encoding", "Cookie"],
            "X-Crawler-Content-Length": str(rng.randrange(10**5)),
            "Set-Cookie": f"session={rng.randrange(16**32):032x}; path=/; HttpOnly",
            "Strict-Transport-Security": "max-age=31536000",
        },
        "HTML-Metadata": html,
        "Entity-Digest": f"sha1:{rng.randrange(32**32):032X}",
    }  # fmt: skip
    request = {"Request-Message": {"Method": "GET", "Path": uri, "Version": "HTTP/1.1"},
               "Headers": {"User-Agent": "CCBot/2.0 (https://commoncrawl.org/faq/)", "Host": host}}  # fmt: skip
    yield _record(rng, uri, "request", {"HTTP-Request-Metadata": request})
    yield _record(rng, uri, "response", {"HTTP-Response-Metadata": response})
    fields = [{"Name": "fetchTimeMs", "Value": str(rng.randrange(2000))}]
    yield _record(rng, uri, "metadata", {"WARC-Metadata-Metadata": {"Metadata-Records": fields}})


def _text(rng: random.Random, words: list[str], most: int) -> str:
    return " ".join(rng.choices(words, k=rng.randint(1, most)))


def _links(rng: random.Random, host: str, site: int, words: list[str]) -> list[dict[str, str]]:
    links: list[dict[str, str]] = []
    for n in range(IMAGES):
        kind = rng.random()
        name = f"{rng.choice(_ENGLISH)}-{rng.randrange(10**6)}.{rng.choice(_VERSIONED)}"
        if kind < 0.16:
            url = f"/wp-content/themes/{site}/img/{n}.png"
        elif kind < 0.4:
            url = f"/wp-content/uploads/2022/{rng.randrange(1, 13):02}/{name}"
        elif kind < 0.9:
            url = f"https://cdn{rng.randrange(500)}.{host[4:]}/images/{rng.randrange(16**12):x}/{name}"
        else:
            url = rng.choice((f"../img/{name}", f"//img.{host[4:]}/{name}", f"{name}?w=300&h=200"))
        link = {"path": "IMG@/src", "url": url}
        if rng.random() < 0.55:
            common = rng.random() < 0.2
            link["alt"] = rng.choice(COMMON_ALTS) if common else _text(rng, words, 8)
        links.append(link)
    for _ in range(OTHER_LINKS):
        slug = f"{rng.choice(_ENGLISH)}-{rng.choice(_ENGLISH)}-{rng.randrange(10**5)}"
        url = f"https://{host}/{rng.choice(_ENGLISH)}/{slug}"
        links.append(
            {"path": "A@/href", "url": url[len(host) + 8 :] if rng.random() < 0.5 else url,
             "title": _text(rng, words, 4), "text": _text(rng, words, 5)}
        )  # fmt: skip
    rng.shuffle(links)
    return links


def _record(rng: random.Random, uri: str, kind: str, payload: dict[str, object]) -> bytes:
    identity = f"<urn:uuid:{rng.randrange(16**32):032x}>"
    header = {"WARC-Type": kind, "WARC-Date": "2022-09-26T10:11:12Z", "WARC-Record-ID": identity,
              "Content-Length": "48231", "WARC-Target-URI": uri, "WARC-IP-Address": "192.0.2.7"}  # fmt: skip
    container = {"Filename": "CC-MAIN.warc.gz", "Compressed": True, "Offset": "80610308"}
    envelope = {"Payload-Metadata": payload, "Format": "WARC/1.0", "WARC-Header-Metadata": header}
    body = json.dumps(
        {"Container": container, "Envelope": envelope}, separators=(",", ":"), ensure_ascii=False
    ).encode()
    head = (
        f"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {uri}\r\n"
        f"WARC-Date: 2022-09-26T10:11:12Z\r\nWARC-Record-ID: {identity}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + body + b"\r\n\r\n", 6, mtime=0)

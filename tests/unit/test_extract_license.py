import pytest

from pairmill.workers.extract.license import find_license
from pairmill.workers.extract.urls import Base

BY = "https://creativecommons.org/licenses/by/4.0/"
BASE = Base("http://page.example/dir/")


@pytest.mark.parametrize(
    ("url", "license_url"),
    [
        (BY, BY),
        ("http://www.creativecommons.org/licenses/by-sa/2.0", None),
        ("HTTP://CreativeCommons.org/Licenses/by/4.0/", "http://creativecommons.org/Licenses/by/4.0/"),
        ("//creativecommons.org/publicdomain/zero/1.0/#t", "http://creativecommons.org/publicdomain/zero/1.0/"),
        (" \nhttp://creativecommons.org/licenses/by a/", "http://creativecommons.org/licenses/by%20a/"),
    ],
)  # fmt: skip
def test_a_licence_link_is_found_and_resolved(url: str, license_url: str | None) -> None:
    assert find_license(["a.html", url, "b.html"], BASE) == (license_url or url)


@pytest.mark.parametrize(
    "url",
    [
        "http://creativecommons.org/",
        "http://creativecommons.org/licenses/",
        "http://creativecommons.org/licenses/?lang=de",
        "http://creativecommons.org/about/licenses/by/",
        "http://i.creativecommons.org/licenses/by/88x31.png",
        "http://notcreativecommons.org/licenses/by/4.0/",
        "http://creativecommons.org.example/licenses/by/4.0/",
        "http://share.example/?u=http://creativecommons.org/licenses/by/4.0/",
        "creativecommons.org/licenses/by/4.0/",
        "/licenses/by/4.0/",
        "ftp://creativecommons.org/licenses/by/4.0/",
        "http://creativecommons.org/licenses/" + "a" * 2_048,
        "http://creativecommons.org/licenses/by\ud800",
    ],
)
def test_other_links_are_no_licence(url: str) -> None:
    assert find_license([url], Base("http://creativecommons.org/share/")) is None
    assert find_license([url, BY], BASE) == BY


def test_the_first_licence_counts() -> None:
    other = BY.replace("by", "by-nc")
    assert find_license([other, BY], BASE) == other
    assert find_license([], BASE) is None

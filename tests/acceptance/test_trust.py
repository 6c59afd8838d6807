"""Real workers, of whom one sees another web than the others do: what it brings does not stay."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pairmill.ops.demo.site import File
from support.database import Database
from support.line import Line, Web, wait_until

URLS = [f"http://h{n % 40}.example/{n}.jpg" for n in range(400)]


def picture(seed: str) -> bytes:
    """A JPEG that looks like no other seed's."""
    noise = hashlib.shake_256(seed.encode()).digest(12 * 12 * 3)
    image = Image.frombytes("RGB", (12, 12), noise).resize((300, 300), Image.Resampling.NEAREST)
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


def web_of(salt: str) -> Web:
    def answer(host: str, path: str) -> File | None:
        if not path.endswith(".jpg") or int(path[1:-4]) % 4 == 0:
            return None
        return File("image/jpeg", picture(path + salt))

    return Web(answer)


@pytest.fixture
def webs() -> Iterator[tuple[Web, Web]]:
    with web_of("").running() as true, web_of("false").running() as false:
        yield true, false


def dsn_of(line: Line, name: str, *options: str) -> str:
    return line.pairmill("worker", "add", name, "--kind", "download", *options).strip()


def test_what_a_false_worker_brings_is_found_out_and_done_again(
    db: Database, line: Line, webs: tuple[Web, Web], tmp_path: Path
) -> None:
    true, false = webs
    db.admin.execute("update mill.setting set open_batches_max = 1, batch_size = 100")
    db.extract(URLS)
    db.close_batches()
    there = Line(db.dsn, tmp_path / "there")
    there.environment |= false.environment
    line.environment |= true.environment
    liar = there.start("download", "--dsn", dsn_of(line, "eve", "--network", "east"))
    wait_until(
        lambda: db.value("select count(*) from mill.task where state = 'submitted'") >= 1, "eve"
    )
    steward = line.start("steward")
    honest = [
        line.start("download", "--dsn", dsn_of(line, name, "--network", network))
        for name, network in (("ada", "north"), ("bob", "south"))
    ]
    _, said = liar.communicate(timeout=120)
    assert liar.returncode == 1
    assert "worker eve was stopped on " in said
    assert "Traceback" not in said
    done = (
        "select count(*) = 400 from mill.current_download join mill.submission using (submission_id)"
        " join mill.worker using (worker_id) where name <> 'eve'"
    )
    wait_until(lambda: db.value(done), "all URLs")
    for child in (*honest, steward):
        child.terminate()
        child.wait()
    hashes = {hashlib.sha256(picture(f"/{n}.jpg")).digest() for n in range(400) if n % 4}
    found = db.rows("select sha256 from mill.current_download where outcome = 0")
    assert {bytes(sha256) for (sha256,) in found} == hashes
    assert len(found) == 300
    checks = json.loads(line.pairmill("replication", "list", "--worker", "eve", "--json"))
    assert "failed" in {check["state"] for check in checks}
    (eve,) = [
        w for w in json.loads(line.pairmill("worker", "list", "--json")) if w["name"] == "eve"
    ]
    assert eve["rows_accepted"] == 0
    assert eve["agreement"] < 0.8
    assert eve["stopped_because"].startswith("others found only")


def test_the_admins_commands(db: Database, line: Line, tmp_path: Path) -> None:
    dsn_of(line, "ada", "--network", "north", "--proven")
    row = "select network, streak is null, proven_at is not null from mill.worker"
    assert db.rows(row) == [("north", True, True)]
    assert line.pairmill("worker", "prove", "ada", "--not") == "ada is not proven\n"
    assert line.pairmill("worker", "network", "ada", "south") == "ada connects from south\n"
    assert db.rows(row) == [("south", False, False)]
    assert "no gold questions" in line.pairmill("gold-question", "list")
    assert "no checks yet" in line.pairmill("replication", "list")
    file = tmp_path / "gold questions.txt"
    file.write_text(f"http://a.example/1.jpg {'ab' * 32}\nhttp://a.example/2.jpg dead\n")
    assert line.pairmill("gold-question", "add", str(file)) == "2 gold questions added\n"
    assert line.pairmill("gold-question", "add", str(file)) == "2 gold questions added\n"
    listed = json.loads(line.pairmill("gold-question", "list", "--json"))
    assert [(c["url"][-5:], c["answer"]) for c in listed] == [
        ("1.jpg", "ab" * 32),
        ("2.jpg", "dead"),
    ]
    assert (
        line.pairmill("gold-question", "remove", "http://a.example/1.jpg")
        == "1 gold questions removed\n"
    )
    assert line.run("gold-question", "remove", "http://a.example/1.jpg").returncode == 1
    assert line.pairmill("gold-question", "remove", "all") == "1 gold questions removed\n"
    file.write_text("nonsense\n")
    assert "line 1 is not" in line.run("gold-question", "add", str(file)).stderr
    assert "cannot be read" in line.run("gold-question", "add", "/none").stderr
    for command in (("prove", "eve"), ("network", "eve", "x")):
        assert "there is no worker 'eve'" in line.run("worker", *command).stderr
    queued = json.loads(line.pairmill("retry", "--doubted", "--json"))
    assert {queued[name] for name in ("batches", "urls", "busy")} == {0}
    assert "--doubted chooses" in line.run("retry", "--doubted", "--now").stderr

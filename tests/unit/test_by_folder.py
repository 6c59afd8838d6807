"""The table of `make coverage` sums what its folders hold."""

from support.by_folder import by_folder, table


def file(*counts: int) -> dict[str, dict[str, int]]:
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    return {"summary": dict(zip(names, counts, strict=True))}


def test_lines_and_branches_are_summed_by_folder() -> None:
    files = {
        "workers/score/a.py": file(8, 10, 1, 4),
        "workers/score/b.py": file(2, 10, 1, 4),
        "ops/__init__.py": file(0, 0, 0, 0),
    }
    assert [line.split() for line in table(by_folder(files))] == [
        ["folder", "lines", "covered", "branches", "covered"],
        ["ops", "0", "-", "0", "-"],
        ["workers/score", "20", "50.0", "%", "8", "25.0", "%"],
        ["all", "20", "50.0", "%", "8", "25.0", "%"],
    ]

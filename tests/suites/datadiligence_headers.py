"""datadiligence's header cases over our reading of X-Robots-Tag and tdm-reservation.

    python tests/suites/datadiligence_headers.py PATH    # of its unpacked source package

Reads the calls of _eval_header_value out of tests/test_xrobots_header.py and test_tdmrep_header.py,
and the headers that its test server sends; its agent, spawningbot, is ours. An unlisted
disagreement, or a listed one that is none, is exit code 1.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from listed import report

from pairmill.workers.directives import AGENT, header_refusal

NOINDEX = "noindex and none refuse here always; there only on demand (respect_noindex)"
# (header, value) -> why ours is another
LISTED = {
    ("X-Robots-Tag", "noindex"): NOINDEX,
    ("X-Robots-Tag", "other, noindex"): NOINDEX,
}
RULES = {"test_xrobots_header.py": "X-Robots-Tag", "test_tdmrep_header.py": "tdm-reservation"}
# what the rule of another agent's or of none sees is not what we see
NAMELESS = "rule_2"
# routes of tests/server/app.py, as the tests expect them; /noindex there with respect_noindex
ROUTES = {
    "/ai": True, "/noai": False, "/user_agents": True, "/user_agents_noai": False,
    "/noindex": False, "/tdmrep": True, "/blocktdmrep": False,
}  # fmt: skip


def allowed(header: str, value: str) -> bool:
    lines = [(header.lower(), value.replace("spawningbot", AGENT))]
    return header_refusal(lines) is None


def evaluated(source: str) -> Iterator[tuple[str, bool]]:
    """(header's value, whether it allows) of each call of the rule that has an agent."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        asserted = ast.unparse(call.func).removeprefix("self.")
        if asserted not in ("assertTrue", "assertFalse") or not isinstance(call.args[0], ast.Call):
            continue
        of = ast.unparse(call.args[0].func)
        if not of.endswith("._eval_header_value"):
            continue
        value = ast.literal_eval(call.args[0].args[0])
        if f".{NAMELESS}." in of and "spawningbot" in str(value):
            continue
        yield value or "", asserted == "assertTrue"


def served(source: str) -> Iterator[tuple[str, str, bool]]:
    """(header, value, whether it allows) of each route that the tests ask."""
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef) or not function.decorator_list:
            continue
        route = ast.literal_eval(function.decorator_list[0].args[0])  # type: ignore[attr-defined]
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                header, value = (ast.literal_eval(n) for n in (node.targets[0].slice, node.value))
                if route in ROUTES and header in RULES.values():
                    yield header, value, ROUTES[route]


def main(path: Path) -> int:
    cases = [
        (header, value, right)
        for file, header in RULES.items()
        for value, right in evaluated((path / "tests" / file).read_text())
    ]
    cases += served((path / "tests/server/app.py").read_text())
    wrong = {
        (h, v): f"{right} there, {not right} here"
        for h, v, right in cases
        if allowed(h, v) != right
    }
    passed = sum(allowed(h, v) == right for h, v, right in cases)
    return report(path, passed, len(cases), wrong, LISTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

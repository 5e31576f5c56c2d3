"""docs/security.md and the tests of stock's defects say the same."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text("utf-8")
ROWS = 42
"""Rows of the first table: defects of stock that were found."""


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def table(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def defect_tests() -> dict[str, list[str]]:
    """Each test of a defect, by "file::name", and what it is decorated with."""
    found = {}
    for path in sorted(TESTS.glob("test_defects_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{path.name}::{node.name}"] = [ast.unparse(decorator) for decorator in node.decorator_list]
    return found


def test_each_defect_has_a_row_and_each_row_a_test() -> None:
    rows = table("1. Defects of stock, closed")
    assert len(rows) == ROWS
    assert all(len(row) == 4 and all(row) for row in rows)
    named = [row[-1].strip("`") for row in rows]
    assert len(set(named)) == len(named)
    assert sorted(named) == sorted(defect_tests())


def test_each_test_of_a_defect_is_made_on_both_sides() -> None:
    assert all({"promise", "promise_on_sockets"} & set(how) for how in defect_tests().values())


def test_whatever_test_the_page_names_exists() -> None:
    for name, test in re.findall(r"`(?:tests/)?(test_\w+\.py)(?:::(\w+))?`", PAGE):
        text = (TESTS / name).read_text("utf-8")
        assert not test or f"def {test}(" in text, f"{name}::{test}"


def test_the_short_page_leads_to_the_long_one() -> None:
    assert "(docs/security.md)" in (TESTS.parent / "SECURITY.md").read_text("utf-8")

"""Run the README's Python snippet beside a finished demo, and compare what it prints with what the README says.

Usage: python tools/run_readme.py FOLDER    (the folder that holds runs/demo)

Figures and neighbours may differ between machines; the number of lines and the first line must not.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def main() -> None:
    """Exit 1 with both texts if they disagree."""
    text = README.read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (expected,) = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    if len(code.splitlines()) > 20:
        sys.exit("the README's snippet is longer than 20 lines")
    os.chdir(sys.argv[1])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(README), "exec"), {})  # noqa: S102 - our own README
    found = printed.getvalue()
    print(found, end="")
    if found.splitlines()[:1] != expected.splitlines()[:1] or found.count("\n") != expected.count("\n"):
        sys.exit(f"the README says:\n{expected}")


if __name__ == "__main__":
    main()

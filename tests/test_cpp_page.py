"""docs/cpp.md shows the program that the native tests build and run."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_shows_the_example_as_it_is_built():
    (shown,) = re.findall(r"```cpp\n(.*?)```", (ROOT / "docs/cpp.md").read_text(), re.DOTALL)
    assert shown == (ROOT / "tests/native/example.cpp").read_text()
    assert "add_test(NAME example COMMAND example)" in (ROOT / "tests/native/CMakeLists.txt").read_text()

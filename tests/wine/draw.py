"""Draws README's picture of ComfyUI portable's console, with the Python of Windows: ``python tests/wine/draw.py``."""

from __future__ import annotations

import json
import re
import sys

from run import CACHE, PYTHON, REPOSITORY, WINDOWS, make_windows

sys.path.insert(0, str(REPOSITORY / "examples"))

from pictures import COLUMNS, draw

SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|(.)", re.DOTALL)


def screen(told: str) -> str:
    """What is on the screen in the end, line by line, of what a pseudoconsole tells a terminal."""
    rows: list[dict[int, str]] = [{}]
    row = column = 0
    look = ""
    for private, numbers, name, character in SEQUENCE.findall(told):
        if name == "m":
            look = f"\x1b[0m\x1b[{numbers}m"
        elif name == "H":
            row, column = [int(number) - 1 for number in (numbers or "1;1").split(";")]
        elif name == "J":
            rows = [{}]
        elif name == "K":
            rows[row] = {place: cell for place, cell in rows[row].items() if place < column}
        elif name == "C":
            column += int(numbers or 1)
        elif character == "\r":
            column = 0
        elif character == "\n":
            row += 1
        elif character:
            if column == COLUMNS:
                row, column = row + 1, 0
            rows += [{}] * (row + 1 - len(rows))
            rows[row] = {**rows[row], column: look + character}
            column += 1
        else:
            assert private, f"a sequence that is not known here: {name}"
        rows += [{} for _ in range(row + 1 - len(rows))]
    lines = ("".join(cells.get(place, "\x1b[0m ") for place in range(max(cells, default=-1) + 1)) for cells in rows)
    return "\n".join(lines)


if __name__ == "__main__":
    make_windows(has_torch=True)
    windows, shown = WINDOWS.copy(CACHE / "prefix-of-picture", core=0), CACHE / "first-minute.json"
    try:
        program = f"Z:{REPOSITORY}/tests/portable/first_minute.py"
        windows.run(PYTHON, program, f"Z:{shown}", PYTHONPATH=f"Z:{REPOSITORY}/tests")
    finally:
        windows.end()
    draw("portable", ((prompt, typed, screen(told)) for prompt, typed, told in json.loads(shown.read_text())))

"""Writes README's table of applications, which follows from what aether-install knows of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aether_install.hosts.kinds import KINDS, Kind
from aether_install.hosts.system import Platform

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- applications: written by examples/applications.py -->", "<!-- end of applications -->"

_SYSTEMS: dict[Platform, str] = {"windows": "Windows", "macos": "macOS", "linux": "Linux"}
_VARIABLES: dict[Platform, dict[str, str]] = {
    "windows": {
        "{appdata}": "%APPDATA%",
        "{data}": "%APPDATA%",
        "{LOCALAPPDATA}": "%LOCALAPPDATA%",
        "{home}": "%USERPROFILE%",
        "{documents}": "%USERPROFILE%/Documents",
    },
    "macos": {
        "{appdata}": "~/Library/Application Support",
        "{data}": "~/Library/Application Support",
        "{home}": "~",
        "{documents}": "~/Documents",
    },
    "linux": {"{appdata}": "~/.config", "{data}": "~/.local/share", "{home}": "~", "{documents}": "~/Documents"},
}


def table() -> str:
    """The table, in Markdown."""
    lines = [
        "| application | `--host` | system | its Python | models go to | restart |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        models = kind.models_by or " or ".join(f"`{path.removeprefix('../../')}`" for path in kind.models)
        beginning = [kind.name, f"`{kind.id}`"]
        end = [models if kind.usable else kind.note, kind.restart]
        for systems, python in _pythons(kind):
            lines.append(f"| {' | '.join([*beginning, systems, python, *end])} |")
            beginning, end = ["", ""], ["", ""]
    return "\n".join(lines)


def _pythons(kind: Kind) -> Iterator[tuple[str, str]]:
    """Where the Python of a kind of host usually is, once for all systems on which that is the same."""
    if kind.vendored:
        yield ", ".join(_SYSTEMS[system] for system in kind.systems), f"a copy of its own, `{kind.vendored[0]}`"
        return
    by_place: dict[str, list[str]] = {}
    for system in kind.systems:
        by_place.setdefault(_python(kind, system), []).append(_SYSTEMS[system])
    for place, systems in by_place.items():
        yield ", ".join(systems), f"`{place}`"


def _python(kind: Kind, system: Platform) -> str:
    is_windows = system == "windows"
    folder = kind.called or next(
        place.replace(name, value)
        for place in kind.places
        for name, value in _VARIABLES[system].items()
        if place.startswith(name)
    )
    environment = next(path for path in kind.environments if is_windows or "embeded" not in path)
    is_venv = environment.rpartition("/")[2] in ("venv", ".venv", "env")
    executable = "Scripts/python.exe" if is_venv else "python.exe"
    path = f"{folder}/{environment}/{executable if is_windows else 'bin/python'}"
    return path.replace("/", "\\") if is_windows else path


def in_readme(text: str) -> str:
    """A README with the table between the two comments."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(in_readme(README.read_text(encoding="utf-8")), encoding="utf-8")

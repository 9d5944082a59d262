"""Applications as their installers lay them out on Windows, with the real embeddable Python and a real spandrel."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from built import one_file
from environments import Environment, make_environment, wheel
from machines import COMFYUI, WEBUI, note, touch

EMBEDDED = Path(os.environ.get("EMBEDDED_PYTHON", r"C:\embedded"))
TORCH = Path(r"C:\torch")

# As on a user's machine, whatever the one that runs the tests has set.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


@dataclass(frozen=True)
class Application:
    """
    An application.

    Attributes:
        folder: where it lives.
        python: its interpreter.
        site_packages: where its spandrel is.
    """

    folder: Path
    python: Path
    site_packages: Path

    @property
    def spandrel(self) -> Path:
        return self.site_packages / "spandrel"

    @property
    def registry(self) -> Path:
        return self.spandrel / "__helpers" / "main_registry.py"

    @property
    def payload(self) -> Path:
        return self.spandrel / "architectures" / "AetherNet"

    def run(self, *arguments: str | Path, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs the one file with its Python, as a user does in a console opened in its folder."""
        command = [os.path.relpath(self.python, self.folder), "aether-install.pyz", *map(str, arguments)]
        options = {"cwd": self.folder, "env": ENVIRONMENT, "shell": False, **options}
        command[0] = str(self.folder / command[0])
        done = subprocess.run(command, capture_output=True, **{"encoding": "utf-8", "errors": "replace", **options})
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def told(self, *arguments: str | Path, **options: Any) -> dict[str, Any]:
        """What a command tells with --json, whatever its exit status."""
        done = self.run(*arguments, "--json", **options)
        try:
            told: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise AssertionError(f"{arguments}: {done.stdout}\n{done.stderr}") from None
        return told


def portable(folder: Path) -> Application:
    """ComfyUI_windows_portable, with the one file in it."""
    root = folder / "ComfyUI_windows_portable"
    touch(root / "ComfyUI", *COMFYUI)
    touch(root, "update/", "run_cpu.bat")
    (root / "ComfyUI" / "main.py").write_text("import sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    python = embedded_python(root / "python_embeded")
    site_packages = python.parent / "Lib" / "site-packages"
    (python.parent / "python312._pth").write_text("../ComfyUI\npython312.zip\n.\n\n# Uncomment\nimport site\n")
    shutil.unpack_archive(wheel("0.4.1"), site_packages, "zip")
    if TORCH.is_dir():
        (site_packages / "torch.pth").write_text(f"{TORCH}\n")
    shutil.copy(one_file(), root)
    return Application(root, python, site_packages)


def embedded_python(folder: Path) -> Path:
    """The embeddable Python, unpacked, and with the bytecode of what Wine's needs as it starts."""
    shutil.copytree(EMBEDDED, folder)
    compileall.compile_dir(folder, maxlevels=0, quiet=1)
    return folder / "python.exe"


def chainner(home: Path) -> Application:
    """chaiNNer in somebody's profile, which it brings a Python for."""
    folder = home / "AppData" / "Roaming" / "chaiNNer"
    note(folder / "settings.json", {"useSystemPython": False})
    python = embedded_python(folder / "python" / "python")
    (python.parent / "python312._pth").write_text("python312.zip\n.\nLib\\site-packages\nimport site\n")
    site_packages = python.parent / "Lib" / "site-packages"
    shutil.unpack_archive(wheel("0.4.2"), site_packages, "zip")
    return Application(folder, python, site_packages)


def a1111(folder: Path) -> Application:
    """stable-diffusion-webui, with a virtual environment."""
    root = touch(folder / "stable-diffusion-webui", *WEBUI, "webui-user.bat")
    made: Environment = make_environment(root / "venv", "0.3.4", borrow=False)
    return Application(root, made.python, made.site_packages)

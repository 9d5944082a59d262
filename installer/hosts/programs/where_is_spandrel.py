"""
Prints, as JSON, this interpreter's version and prefix and which spandrel it would import, without importing it.

``spandrel`` is a folder or null, ``also`` other folders further down the path, ``looked_in`` the path itself, and
``left_out`` a folder among the user's own packages, where a flag keeps them off the path. ``pip`` and ``ensurepip`` are
whether it has these, ``managed`` whether its packages are the system's own business (PEP 668).
"""

import sys

if __name__ == "__main__" and sys.path[:1] == [""]:
    # The current folder, in which a module of any name may lie.
    del sys.path[0]

import importlib.util
import json
import os
import platform
import site
import sysconfig
from importlib.machinery import ModuleSpec
from typing import Any, Dict, List, Optional


def _package_of(spec: Optional[ModuleSpec]) -> Optional[str]:
    # A folder that is left over from an uninstalled package is importable too, but has no origin.
    return os.path.dirname(os.path.abspath(spec.origin)) if spec is not None and spec.origin else None


def _is_closed(package: str) -> bool:
    # Of a folder that may not be looked into, Python makes an importable nothing, after all others on the path.
    try:
        os.stat(os.path.join(package, "__init__.py"))
    except PermissionError:
        return os.path.isdir(package)
    except OSError:
        pass
    return False


def _left_out() -> List[str]:
    package = os.path.join(site.getusersitepackages(), "spandrel")
    return [package] if sys.flags.no_user_site and os.path.isfile(os.path.join(package, "__init__.py")) else []


def _is_managed() -> bool:
    marker = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    return sys.prefix == sys.base_prefix and os.path.isfile(marker)


def answer() -> Dict[str, Any]:
    found = _package_of(importlib.util.find_spec("spandrel"))
    candidates = [os.path.join(os.path.abspath(entry), "spandrel") for entry in sys.path]
    found = found or next(filter(_is_closed, candidates), None)
    also = [path for path in candidates if os.path.isfile(os.path.join(path, "__init__.py"))]
    seen = {os.path.realpath(found)} if found else set()
    others = []
    for path in also:
        if os.path.realpath(path) not in seen:
            seen.add(os.path.realpath(path))
            others.append(path)
    return {
        "executable": sys.executable,
        "version": platform.python_version(),
        "prefix": sys.prefix,
        "spandrel": found,
        "also": others,
        "left_out": _left_out(),
        "pip": importlib.util.find_spec("pip") is not None,
        "ensurepip": importlib.util.find_spec("ensurepip") is not None,
        "managed": _is_managed(),
        "looked_in": [os.path.abspath(entry) for entry in sys.path],
    }


if __name__ == "__main__":
    print(json.dumps(answer()))

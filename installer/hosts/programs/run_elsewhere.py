"""
Runs a command line with packages from somewhere else in this interpreter, whose torch it is to use.

The first argument says, as JSON, which function of which module to call and where the packages lie: in an application
archive, or by name each package's ``__init__.py`` and the folders of its modules. What this interpreter has of the same
names is passed over. The arguments after it are the command line's.
"""

import sys

if sys.path[:1] == [""]:
    # The current folder, in which a module of any name may lie.
    del sys.path[0]

import json
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from typing import Any, Dict, List, Optional, Tuple


class _Packages:
    """Finds the given packages where they are said to lie."""

    def __init__(self, places: Dict[str, Tuple[str, List[str]]]) -> None:
        self._places = places

    def find_spec(self, name: str, *_: Any) -> Optional[ModuleSpec]:
        if name not in self._places:
            return None
        origin, folders = self._places[name]
        return spec_from_file_location(name, origin, submodule_search_locations=folders)


def main() -> None:
    what = json.loads(sys.argv.pop(1))
    for name in list(sys.modules):
        if name.partition(".")[0] in what["packages"]:
            # Imported at start-up, by a .pth file or a sitecustomize.
            del sys.modules[name]
    if what["archive"]:
        sys.path.insert(0, what["archive"])
    else:
        sys.meta_path.insert(0, _Packages(what["packages"]))
    getattr(import_module(what["module"]), what["function"])()


if __name__ == "__main__":
    main()

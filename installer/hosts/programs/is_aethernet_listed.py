"""
Prints ``yes`` if this interpreter's spandrel can be imported and lists an AetherNet, whoever's that is; the one
argument is the folder that it must be in.
"""

import sys

if sys.path[:1] == [""]:
    # The current folder, in which a module of any name may lie.
    del sys.path[0]

import os

import spandrel


def main(folder: str) -> None:
    imported = os.path.dirname(os.path.abspath(spandrel.__file__))
    if os.path.realpath(imported) != os.path.realpath(folder):
        raise SystemExit("this interpreter imports spandrel from %s, not from %s" % (imported, folder))
    modules = [type(support.architecture).__module__ for support in spandrel.MAIN_REGISTRY]
    if not any(".AetherNet" in name for name in modules):
        raise SystemExit("none of its %d architectures is AetherNet" % len(modules))
    print("yes")


if __name__ == "__main__":
    main(sys.argv[1])

"""
Runs aether-install from one file, with the packages that the file holds.

Any Python must be able to read this module: one that is too old is told so.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit(
        "aether-install: %s is Python %d.%d, and this needs 3.10 or later; run it with a newer Python, and name this "
        "one with --python" % (sys.executable, sys.version_info[0], sys.version_info[1])
    )

# The Python that runs this is somebody else's, and nothing is written into it.
sys.dont_write_bytecode = True

# A .pth file or a sitecustomize may have imported another version of what comes with this file.
for _name in list(sys.modules):
    if _name.partition(".")[0] in ("click", "colorama", "markdown_it", "mdurl", "pygments", "rich"):
        del sys.modules[_name]

if __name__ == "__main__":
    from aether_install.cli import main

    main(prog_name="aether-install")

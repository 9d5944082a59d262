"""``python -m aether_install``, the same as the command ``aether-install``."""

from .cli import main

if __name__ == "__main__":
    main()

"""``python -m app`` is the command ``modelpress-server``."""

from app.cli import main

if __name__ == "__main__":
    main()

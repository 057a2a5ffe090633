"""``python -m dream_sc``: the shell command where its script is not on the path."""

from dream_sc._cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

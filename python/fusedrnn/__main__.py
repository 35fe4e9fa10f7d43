"""``python -m fusedrnn``: the command."""

from fusedrnn.cli import main

if __name__ == "__main__":
    main()

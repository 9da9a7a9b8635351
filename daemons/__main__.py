"""`python -I -m daemons`: what the launcher starts."""

from daemons.cli import main

if __name__ == "__main__":
    main()

"""`python -m da COMMAND …`: what `da` does, where its script is not on the path."""

from da.cli._main import entry

if __name__ == "__main__":
    entry()

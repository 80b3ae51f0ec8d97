"""`python -m memferry`."""

from memferry.cli.main import run

if __name__ == "__main__":
    run()

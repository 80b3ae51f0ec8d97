"""`python -m memferry_operator`."""

from memferry_operator.main import run

if __name__ == "__main__":
    run()

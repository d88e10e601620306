"""`python -m runbooks TASK …`: what `./inv` and `invoke` start."""

from runbooks.program import program

if __name__ == "__main__":
    program.run()

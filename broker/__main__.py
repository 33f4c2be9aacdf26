"""`python -m broker` is the same as `leveret`."""

from broker.cli import main

if __name__ == "__main__":
    main()

"""`python -m benchmarks`."""

from benchmarks.run import main

if __name__ == "__main__":  # lakes are written by several processes, which import this again
    main()

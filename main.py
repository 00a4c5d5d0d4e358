"""Start the service: `python main.py [--config PATH]`."""

import sys

from whisper_serve.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))

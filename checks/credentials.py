"""Is there a key or a password in the project's files? Part of `make check`.

`.secrets.baseline` holds the hashes of what looks like one and was found to be none: digests of
weights, words in tests. `python checks/credentials.py --accept` takes in what is there now.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

BASELINE = ".secrets.baseline"
# Of detect-secrets-hook: nothing is new, though known lines may have moved.
FINE = {0, 3}


def files_of(folder: Path) -> list[str]:
    """All but what git ignores."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listing, cwd=folder, capture_output=True, text=True, check=True)
    names = sorted(set(done.stdout.split("\0")) - {"", BASELINE})
    return [name for name in names if (folder / name).is_file()]


def new_secrets(folder: Path) -> str:
    """What detect-secrets says of them; nothing when there are none."""
    with TemporaryDirectory() as scratch:
        # The hook writes down where known ones have moved to.
        known = shutil.copy(folder / BASELINE, scratch)
        hook = [sys.executable, "-m", "detect_secrets.pre_commit_hook", "--no-verify"]
        done = subprocess.run(
            [*hook, "--baseline", known, *files_of(folder)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    return "" if done.returncode in FINE else done.stdout + done.stderr


def accept(folder: Path) -> None:
    scan = [sys.executable, "-m", "detect_secrets", "scan", "--no-verify"]
    done = subprocess.run(
        [*scan, *files_of(folder)], cwd=folder, capture_output=True, text=True, check=True
    )
    (folder / BASELINE).write_text(done.stdout, encoding="utf-8")


def main(folder: Path, arguments: list[str]) -> int:
    if arguments == ["--accept"]:
        accept(folder)
        return 0
    found = new_secrets(folder)
    print(f"credentials: {found or 'none in the files of the project'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path.cwd(), sys.argv[1:]))

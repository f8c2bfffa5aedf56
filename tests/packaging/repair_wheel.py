"""Make the wheel in a folder fit for other machines: `python repair_wheel.py dist`.

On Linux auditwheel gives it the oldest manylinux tag its symbols allow; elsewhere the wheel already is what it says.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(folder: Path) -> None:
    if sys.platform != "linux":
        return
    for wheel in folder.glob("*-linux_*.whl"):
        subprocess.run(
            [sys.executable, "-m", "auditwheel", "repair", "--strip", "--wheel-dir", folder, wheel], check=True
        )
        wheel.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Takes the README's walk for real and keeps what each step printed: `make walk`, about ten minutes, where nothing else runs.

The commands are those of the README itself: the shell block before each marker `<!-- walk STEP -->` is typed, and what it prints
is kept in docs/walk/STEP.txt, from where `make readme` puts it between the markers. A page, which would stay open, is closed as by
Ctrl-C once it has said where it is. Stops with the output of the first command that fails.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "walk"
STEP = re.compile(r"```bash\n((?:(?!```).)*?)```\n\n<!-- walk (\w+) -->", re.DOTALL)


def steps(readme: str) -> dict[str, str]:
    """The shell block of each step of the walk, by the step's name, in the README's order."""
    return {name: block for block, name in STEP.findall(readme)}


def typed(block: str) -> str:
    """What a shell prints for `block` in the project's folder. Raises SystemExit where it fails."""
    here = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    shell = subprocess.Popen(
        ["bash", "-euc", block], cwd=ROOT, env=here, text=True, encoding="utf-8", start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = ""
    for line in shell.stdout or ():
        print(line, end="", flush=True)
        said += line
        if "Open http" in line:
            os.killpg(shell.pid, signal.SIGINT)
    if shell.wait() not in (0, 128 + signal.SIGINT, -signal.SIGINT):
        sys.exit(f"The step failed with {shell.returncode}.")
    return "\n".join(line.rstrip() for line in said.strip("\n").splitlines()) + "\n"


def main() -> None:
    """Each step in turn."""
    KEPT.mkdir(exist_ok=True)
    for name, block in steps((ROOT / "README.md").read_text(encoding="utf-8")).items():
        print(f"--- {name}\n{block}", flush=True)
        (KEPT / f"{name}.txt").write_text(typed(block), encoding="utf-8")


if __name__ == "__main__":
    main()

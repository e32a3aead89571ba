"""Run the walkthrough and record the output of each step: `make walk`, about ten minutes on an idle machine.

The commands are those of docs/en/walkthrough.md itself: the shell block before each marker `<!-- walk STEP -->` is
executed, and its output is written to docs/walk/STEP.txt, from where `make readme` copies it between the markers of all
pages. The demo page, which would stay open, is closed as by Ctrl-C once it has printed its address. The first command
that fails ends the script.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "en" / "walkthrough.md"
KEPT = ROOT / "docs" / "walk"
STEP = re.compile(r"```bash\n((?:(?!```).)*?)```\n\n<!-- walk (\w+) -->", re.DOTALL)


def steps(page: str) -> dict[str, str]:
    """Return the shell block of each step of the walkthrough by the name of the step, in the order of the page."""
    return {name: block for block, name in STEP.findall(page)}


def execute(block: str) -> str:
    """Run `block` in a shell in the project's folder and return its output. Raises SystemExit if it fails."""
    here = {
        **os.environ,
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
    }
    shell = subprocess.Popen(
        ["bash", "-euc", block],
        cwd=ROOT,
        env=here,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = ""
    for line in shell.stdout or ():
        print(line, end="", flush=True)
        output += line
        if "Open http" in line:
            os.killpg(shell.pid, signal.SIGINT)
    if shell.wait() not in (0, 128 + signal.SIGINT, -signal.SIGINT):
        sys.exit(f"The step failed with {shell.returncode}.")
    return "\n".join(line.rstrip() for line in output.strip("\n").splitlines()) + "\n"


def main() -> None:
    """Run every step and write its output."""
    outputs = {}
    for name, block in steps(PAGE.read_text(encoding="utf-8")).items():
        print(f"--- {name}\n{block}", flush=True)
        outputs[name] = execute(block)
    KEPT.mkdir(exist_ok=True)
    for (
        name,
        output,
    ) in outputs.items():  # at the end: `report` would renew the pages that show them
        (KEPT / f"{name}.txt").write_text(output, encoding="utf-8")


if __name__ == "__main__":
    main()

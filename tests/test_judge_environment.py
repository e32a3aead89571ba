"""judge, score and report need the packages of requirements-judge.txt and no others."""

import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pandas as pd
from PIL import Image

from tests.conftest import ROOT

BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import run
for words in COMMANDS:
    code = run.main(words)
    assert code == 0, (words, code)
print("done")
"""


def closure(names):
    """Distributions that these need, themselves included, without extras."""
    needed, waiting = set(), {name.lower() for name in names}
    while waiting:
        name = waiting.pop()
        needed.add(name)
        for line in metadata.requires(name) or ():
            other = re.match(r"[\w.-]+", line)[0].lower().replace("_", "-")
            if "extra ==" not in line and other not in needed and installed(other):
                waiting.add(other)
    return needed


def installed(name):
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def test_the_three_commands_run_with_nothing_else_installed(tmp_path):
    text = (ROOT / "requirements-judge.txt").read_text()
    allowed = closure(re.findall(r"^([\w-]+)==", text, re.MULTILINE))
    packages = metadata.packages_distributions()
    kept = {top for top, owners in packages.items() if {o.lower().replace("_", "-") for o in owners} & allowed}
    blocked = sorted({top for top in packages if top not in kept and top not in sys.stdlib_module_names})
    assert {"torch", "mlflow", "albumentations", "optuna", "filelock", "psutil", "pydantic"} <= set(blocked)
    for folder in ("truth", "ours"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            Image.fromarray(np.eye(40, dtype=bool)).save(tmp_path / folder / f"{name}.png")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"net": np.repeat(["a", "b"], 5), "seed": [*range(5)] * 2, "f1": rng.normal(0.9, 0.01, 10)})
    frame.to_csv(tmp_path / "s.csv", index=False)
    table, page = str(tmp_path / "s.csv"), str(tmp_path / "page.html")
    commands = [
        ["judge", table, "--score", "f1", "--cell", "net", "--seed", "seed", "--html", page],
        ["score", str(tmp_path / "ours"), str(tmp_path / "truth"), "--output", str(tmp_path / "o.csv")],
        ["report", "two_by_two", "--readme", str(tmp_path / "page.md"), "--output-dir", str(tmp_path / "outputs")],
    ]
    (tmp_path / "page.md").write_text("")
    results = tmp_path / "results"
    subprocess.run(["cp", "-r", str(ROOT / "analysis" / "results"), str(results)], check=True)
    for drawn in [*results.rglob("*.svg"), *results.rglob("pictures.json")]:
        # other versions draw them otherwise, and files of a copy are not replaced
        drawn.unlink()
    commands[2] += ["--results-dir", str(results)]
    code = f"BLOCKED = set({blocked!r})\nCOMMANDS = {commands!r}\n{BLOCKER}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith("done"), done.stdout[-500:] + done.stderr[-2000:]

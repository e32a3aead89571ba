"""Source of gpu-study.ipynb and gpu-study.zh-CN.ipynb, which carry out the study full_size on a free GPU."""

# %% [markdown] en
# # The study `full_size` on a free GPU
#
# [中文](gpu-study.zh-CN.ipynb) · open in
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/reference/gpu-study.ipynb)
# or [Colab](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/reference/gpu-study.ipynb)
#
# [`full_size`](../docs/en/designs.md#full_size-and-classic) compares four networks and four losses at 384×256 and width
# 64: 80 runs and 80 tuning trials. Nobody has measured how long they take. They need not fit into one session, or on
# one account: finished runs in the repository count as done, and every session adds some.
#
# On Kaggle: choose a GPU, switch the internet on, and add the data of the competition *Carvana Image Masking Challenge*
# (its rules must be accepted). Then run the six cells.
#
# 1. **Settings and project.** `TINY = True` tries all six cells on a CPU, with synthetic cars.
# 2. **Data.** Carvana is reduced to the copies that the published studies used, byte for byte.
# 3. **Plan.** The precision is fixed at fp16, which every free GPU has. Runs in bf16 would be other runs.
# 4. **Training.** It ends before the session does and resumes from the last checkpoint. In a new session, first add the
#    output of the last one as input.
# 5. **Report.** Partial results are fine: the page says how many runs are finished.
# 6. **Pull request.** Unpack the archive in a clone of the repository and open a pull request with it.

# %% [markdown] zh
# # 在免费 GPU 上完成研究 `full_size`
#
# [English](gpu-study.ipynb) · 在
# [Kaggle](https://kaggle.com/kernels/welcome?src=https://github.com/OWNER/REPOSITORY/blob/main/reference/gpu-study.zh-CN.ipynb)
# 或 [Colab](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/reference/gpu-study.zh-CN.ipynb) 中打开
#
# [`full_size`](../docs/zh/designs.md#full_size-与-classic) 在 384×256、宽度 64 下比较四种网络和四种损失函数：80 次训练、80 次调参试验，
# 需要多长时间尚未测量过。不必在一次会话或一个账号内做完：仓库中已有的结果算作完成，每次会话都能再补上一些。
#
# 在 Kaggle 上：选择 GPU，打开网络连接，添加竞赛 *Carvana Image Masking Challenge* 的数据（须先接受其规则），然后依次运行六个单元格。
#
# 1. **设置与项目**：`TINY = True` 时用合成汽车在 CPU 上把六个单元格试一遍。
# 2. **数据**：把 Carvana 缩小为已发布研究所用的副本，逐字节一致。
# 3. **计划**：精度固定为 fp16，所有免费 GPU 都支持；用 bf16 的训练算作另外的训练。
# 4. **训练**：在会话结束之前停止，下次从最近的检查点继续。在新会话中，请先把上一次的输出添加为输入。
# 5. **报告**：结果不完整也没关系，页面会注明已完成多少次训练。
# 6. **提交**：在仓库的克隆中解压，然后提交 pull request。

# %%
TINY = False  # True: a few minutes on any CPU, with synthetic cars
HOURS = 11  # of training in this session; Kaggle ends a session after 12

import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

kaggle = Path("/kaggle/working")
if not Path("../registry.py").exists():
    address = "https://github.com/OWNER/REPOSITORY.git"
    subprocess.run(["git", "clone", "--quiet", address, "/tmp/project"], check=True)
    os.chdir("/tmp/project/reference")
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-r", "../requirements.txt"], check=True)
os.chdir("..")
WORK = kaggle if kaggle.exists() else Path("outputs/gpu-study")
WORK.mkdir(parents=True, exist_ok=True)
DATA, RUNS = WORK / "data", WORK / "outputs"
PULL = WORK / "pull-request" if TINY else Path()  # what a pull request holds
RESULTS = PULL / "analysis" / "results"


def run(*words, hours=None):
    """A command of the project, interrupted after `hours`, from where it resumes."""
    command = [sys.executable, "run.py", *map(str, words)]
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    process = subprocess.Popen(command, stdout=pipe, stderr=out, text=True)
    if hours:
        timer = threading.Timer(hours * 3600, process.send_signal, [signal.SIGINT])
        timer.daemon = True
        timer.start()
    for line in process.stdout:
        print(line, end="")
    assert process.wait() in ((0, 130) if hours else (0,)), "the command failed"


# %%
source = Path("/kaggle/input/carvana-image-masking-challenge")
if TINY:
    run("data", "make", "--data-dir", DATA, "--cars", 8, "--size", "96x64")
elif not DATA.exists():
    archives = [source / "train.zip", source / "train_masks.zip"]
    if not archives[0].exists():  # elsewhere than on Kaggle
        run("data", "download", "carvana")
    else:
        run("data", "import", *archives, "--data-dir", "data/carvana")
    run("data", "reduce", "--data-dir", "data/carvana", "--output", DATA)
weights = Path("weights/mobilenet_v2-b0353104.pth")
if not TINY and not weights.exists():
    weights.parent.mkdir(exist_ok=True)
    address = f"https://download.pytorch.org/models/{weights.name}"
    subprocess.run(["curl", "-sSLo", str(weights), address], check=True)

# %%
plan = Path("experiments/studies/full_size.toml").read_text(encoding="utf-8")
plan = plan.replace("epochs = 20", 'epochs = 20\nprecision = "fp16"')
if TINY:
    plan = """
    [settings]
    data = "synthetic"
    size = "48x32"
    epochs = 1
    [factors]
    model = [{ label = "unet", model = "unet", model_kwargs = { width = 4 } }]
    loss = ["bce", "bce_dice"]
    [design]
    seeds = [0, 1]
    [tuning]
    low = 1e-3
    high = 1e-2
    points = 4
    seeds = [100]
    """
STUDY = WORK / "full_size.toml"
STUDY.write_text(plan, encoding="utf-8")
study = ["study", STUDY, "--data-dir", DATA, "--output-dir", RUNS]
run(*study, "--dry-run")

# %%
earlier = next(Path("/kaggle/input").rglob("outputs/studies"), None)
if earlier and not RUNS.exists():  # the output of the last session
    shutil.copytree(earlier.parent, RUNS)
run(*study, *([] if TINY else ["--published"]), hours=HOURS)

# %%
where = []
if TINY:  # beside the checkout, whose results are those of real studies
    PULL.mkdir(exist_ok=True)
    (PULL / "README.md").touch()
    where = ["--results-dir", RESULTS, "--readme", PULL / "README.md"]
run("report", "full_size", "--output-dir", RUNS, *where)

# %%
paths = list((RESULTS / "full_size").glob("[!.]*"))
paths += [
    PULL / "docs" / language / "studies" / "full_size.md" for language in ("en", "zh")
]
paths += RESULTS.glob("ledger.csv")
archive = WORK / "full_size-results.zip"
with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
    for path in paths:
        packed.write(path, path.relative_to(PULL))
print(archive, "holds", *packed.namelist(), sep="\n  ")

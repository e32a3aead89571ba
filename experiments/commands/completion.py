"""The command `run.py completion`: cyclopts' completion script, for `run_py` and (in bash) for `python run.py` too."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App

from experiments.commands.flags import flag

Shell = Annotated[Literal["bash", "zsh", "fish"], flag("shell")]

# Cyclopts' zsh script registers itself only when it lies in zsh's own completion folder, not when it is sourced.
_ZSH = """
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _cyclopts_run_py run_py
"""

# bash completes by a command's first word, which is python: where run.py follows, it is dropped before completing.
_BASH = """
_python_run_py() {
  if [[ ${COMP_WORDS[1]##*/} == run.py && $COMP_CWORD -gt 1 ]]; then
    COMP_WORDS=("${COMP_WORDS[@]:1}")
    ((COMP_CWORD -= 1))
    _run_py
  fi
}
complete -o bashdefault -o default -F _python_run_py python python3
"""

_REGISTER = {"bash": _BASH, "zsh": _ZSH}


def script(app: App, shell: Shell) -> str:
    """The completion script of `run_py` and, in bash, of `python run.py`."""
    wrapper = "function run_py; python run.py $argv; end" if shell == "fish" else 'run_py() { python run.py "$@"; }'
    return f"{app.generate_completion(prog_name='run_py', shell=shell)}{wrapper}\n{_REGISTER.get(shell, '')}"

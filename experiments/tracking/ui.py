"""MLflow's own pages, on loopback unless another address is asked for by name."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path

from experiments.config.schema import without_password
from experiments.tracking.store import Unusable, open_store, set_up, store_uri
from registry import InputError

LOOPBACK = "127.0.0.1"


def serve(output_dir: Path, uri: str | None, port: int, host: str = LOOPBACK) -> None:
    """Replace this process by MLflow's own UI, on the right store; a server has its own, whose address is printed.

    Raises InputError for what is no address, and for a store that cannot be opened.
    """
    inside = is_loopback(host)
    set_up()
    place = store_uri(uri, output_dir)
    if place.startswith(("http://", "https://")):
        print(f"MLflow has its own pages there. Open {without_password(place)} in a browser.")
        return
    print(f"MLflow: {without_password(place)}", flush=True)
    try:
        open_store(place, output_dir)
    except Unusable as error:
        raise InputError(str(error)) from None
    except Exception as error:  # of MLflow or its database: any
        reason = without_password(" ".join(str(error).split())[:200])
        raise InputError(f"The MLflow store {without_password(place)} cannot be opened: {reason}") from None
    words = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    if not inside:
        print(warning(host, port), file=sys.stderr, flush=True)
        if not ipaddress.ip_address(host).is_unspecified:  # else the names of this machine alone, which MLflow knows
            words += ["--allowed-hosts", f"localhost:{port},{LOOPBACK}:{port},{_in_url(host)}:{port}"]
    os.execv(sys.executable, [*words, "--backend-store-uri", place])


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches `host`. Raises InputError for what is no address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise InputError(
            f"--host takes an address of this machine, such as {LOOPBACK} or 0.0.0.0, not '{host}'."
        ) from None


def warning(host: str, port: int) -> str:
    """What is said before others are let in."""
    return (
        f"WARNING: MLflow listens on {host}:{port} without a password: anyone who reaches that address can read, "
        "change and delete runs. Safer: leave out --host, and from the other machine type "
        f"ssh -L {port}:{LOOPBACK}:{port} THIS-MACHINE."
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

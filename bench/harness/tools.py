"""What the bench needs from outside: Debian packages, the peers' environment, the server under test, its versions."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
PROJECT = BENCH.parent
PEERS = PROJECT / "build" / "bench-peers"
REQUIREMENTS = BENCH / "requirements-peers.txt"
RESULTS = BENCH / "results"


class Missing(Exception):
    """Something to install; the message says what and how."""


def need_command(command: str, package: str) -> str:
    """The path of a command, installed from Debian's package when we may."""
    path = os.environ.get("PATH", "")
    # Debian keeps daemons where an ordinary user's PATH does not look.
    where = f"{path}:/usr/sbin:/sbin"
    found = shutil.which(command, path=where)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing the Debian package {package} for {command}", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=False, stdout=subprocess.DEVNULL)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # Without recommends: nginx alone, not its module packages; its packaged service is never started by us.
        install = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", package]
        subprocess.run(install, check=False, env=environ, stdout=subprocess.DEVNULL)
        found = shutil.which(command, path=where)
    if found is None:
        raise Missing(f"{command} is not installed; run: apt-get install {package}")
    return found


def need_peers() -> None:
    """Builds the peers' environment when it is absent or its requirements have changed."""
    stamp = PEERS / ".requirements"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"installing {REQUIREMENTS.name} into {PEERS.relative_to(PROJECT)}", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEERS)], check=True)
        pip = [str(PEERS / "bin" / "pip"), "--disable-pip-version-check", "install", "-q", "-r", str(REQUIREMENTS)]
        subprocess.run(pip, check=True)
    except subprocess.CalledProcessError as error:
        raise Missing(f"the peers could not be installed: {shlex.join(map(str, error.cmd))} failed") from error
    stamp.write_text(wanted)


def need_duckfast(given: str | None) -> list[str]:
    """The command of the server under test, as words: the project's own build, or what --duckfast says."""
    words = shlex.split(given) if given else [str(PROJECT / ".venv" / "bin" / "duckfast")]
    found = shutil.which(words[0])
    if found is None:
        raise Missing(f"{words[0]} is not there; run `make build`, or name another with --duckfast PATH/bin/duckfast")
    # Absolute, because servers are started from bench/.
    return [os.path.abspath(found), *words[1:]]


def certificate() -> tuple[str, str]:
    """A certificate and its key, the same for all servers: ECDSA P-256 as the web's are, made once."""
    folder = PROJECT / "build" / "bench-certificate"
    files = folder / "certificate.pem", folder / "key.pem"
    if not all(file.exists() for file in files):
        openssl = need_command("openssl", "openssl")
        folder.mkdir(parents=True, exist_ok=True)
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"]
        command += ["-subj", "/CN=localhost", "-out", str(files[0]), "-keyout", str(files[1])]
        subprocess.run(command, check=True, capture_output=True)
    return str(files[0]), str(files[1])


def server_environ() -> dict[str, str]:
    """Nobody's settings but ours: a DUCKFAST_* or WEB_CONCURRENCY of the shell would silently change what is measured."""
    dropped = ("DUCKFAST_", "GRANIAN_", "UVICORN_", "GUNICORN_", "WEB_CONCURRENCY", "PYTHONDEVMODE", "PYTHONTRACEMALLOC")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    if path := environ.get("PYTHONPATH"):
        # Servers are started from bench/, so `PYTHONPATH=src` would mean another folder there.
        environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path.split(os.pathsep))
    return environ


def peers_environ() -> dict[str, str]:
    # PYTHONPATH may point at a development build of ours; the peers get the folder of the apps and nothing else.
    return {**server_environ(), "PYTHONPATH": str(BENCH)}


def first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, env=server_environ()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    lines = done.stdout.strip().splitlines()
    return lines[0].strip() if lines else "unknown"


def peer_versions() -> dict[str, str]:
    listing = subprocess.run(
        [str(PEERS / "bin" / "pip"), "--disable-pip-version-check", "freeze"], capture_output=True, text=True, check=False
    ).stdout
    pinned = {line.split("==")[0] for line in REQUIREMENTS.read_text().splitlines() if "==" in line}
    found = dict(line.split("==", 1) for line in listing.splitlines() if "==" in line)
    return {name: version for name, version in found.items() if name in pinned}


def machine() -> dict[str, str]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": model,
        "cores": str(os.cpu_count()),
        "python": f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})",
    }


def commit() -> str:
    described = first_line(["git", "-C", str(PROJECT), "describe", "--always", "--dirty"])
    return described if " " not in described else "unknown"

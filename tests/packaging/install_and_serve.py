"""Prove one artifact: `python install_and_serve.py dist/x.whl --without-compiler`.

Without an artifact: `--installed` asks the duckfast of this interpreter's environment.

Looks into the file, installs it into a clean environment, starts the installed `duckfast` with the demo app, a WSGI
app and an ASGI app, and asks each over a real socket. Uses the standard library and nothing of the checkout but
examples/, so it also proves that those run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMPILERS = ("cc", "gcc", "clang", "c++", "g++", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc")
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the machine is not ours
START_DEADLINE = 30  # seconds; a server on a busy machine


def contents(artifact: Path) -> list[str]:
    if artifact.suffix == ".whl":
        return zipfile.ZipFile(artifact).namelist()
    with tarfile.open(artifact) as archive:
        return archive.getnames()


def check_contents(artifact: Path) -> None:
    """A wheel holds what runs and what type checkers read; an sdist holds what builds. Neither holds generated C."""
    suffixes = {Path(name).suffix for name in contents(artifact)}
    wanted, unwanted = (
        ({".so", ".py", ".pyi"}, {".pyx", ".pxd", ".c", ".h"})
        if artifact.suffix == ".whl"
        else ({".pyx", ".pxd", ".py"}, {".c", ".so"})
    )
    assert wanted <= suffixes, f"{artifact.name} lacks {sorted(wanted - suffixes)}"
    assert not unwanted & suffixes, f"{artifact.name} holds {sorted(unwanted & suffixes)}"
    names = {Path(name).name for name in contents(artifact)}
    assert {"py.typed", "LICENSE"} <= names, f"{artifact.name} lacks py.typed or LICENSE"


def environment(folder: Path, with_compiler: bool) -> dict[str, str]:
    """The environment of everything below. Without a compiler every usual name of one is shadowed by a failing one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DUCKFAST_", "PYTHON"))}
    clean["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    if not with_compiler:
        shadows = folder / "no-compiler"
        shadows.mkdir()
        for name in COMPILERS:
            (shadows / name).symlink_to(shutil.which("false") or "/bin/false")
        clean |= {"CC": "/bin/false", "CXX": "/bin/false", "PATH": f"{shadows}{os.pathsep}{clean['PATH']}"}
    return clean


def install(artifact: Path, folder: Path, env: dict[str, str]) -> Path:
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    no_build = ["--only-binary", ":all:"] if artifact.suffix == ".whl" else []
    subprocess.run([python, "-m", "pip", "install", "--quiet", *no_build, artifact], check=True, env=env)
    return python.parent


def ask(address: str, log: Path, server: subprocess.Popen[bytes]) -> bytes:
    """The body of GET /, as soon as the server listens."""
    until = time.monotonic() + START_DEADLINE
    while True:
        try:
            with DIRECTLY.open(address, timeout=5) as response:
                assert response.status == 200
                return bytes(response.read())
        except (urllib.error.URLError, ConnectionError) as problem:
            if server.poll() is not None or time.monotonic() > until or isinstance(problem, urllib.error.HTTPError):
                raise SystemExit(f"no answer ({problem}); the server said:\n{log.read_text()}") from None
            time.sleep(0.1)  # the server is starting; nothing on this side can be waited for


def serve_and_ask(bin_folder: Path, folder: Path, env: dict[str, str], port: int, *arguments: str) -> bytes:
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [bin_folder / "duckfast", "--host", "127.0.0.1", "--port", str(port), *arguments],
            cwd=folder,  # never the checkout: only the installed package can be imported from here
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            body = ask(f"http://127.0.0.1:{port}/", log, server)
            server.send_signal(signal.SIGTERM)
            code = server.wait(START_DEADLINE)
        finally:
            server.kill()
    assert code == 0, f"exit code {code} after SIGTERM; the server said:\n{log.read_text()}"
    return body


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def check_serving(bin_folder: Path, folder: Path, env: dict[str, str]) -> None:
    for example in EXAMPLES.glob("*_hello.py"):
        shutil.copy(example, folder)
    for target, words in (([], b"duckfast"), (["wsgi_hello:app"], b"Hello"), (["asgi_hello:app"], b"Hello")):
        body = serve_and_ask(bin_folder, folder, env, free_port(), *target)
        assert words in body, (target, body)


def main() -> None:
    parser = argparse.ArgumentParser(description="Install an artifact into a clean environment and serve with it.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("artifact", type=Path, nargs="?")
    what.add_argument("--installed", action="store_true", help="nothing is installed: serve with what already is")
    parser.add_argument("--without-compiler", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="duckfast-") as temporary:
        folder = Path(temporary)
        env = environment(folder, with_compiler=not options.without_compiler)
        if options.installed:
            check_serving(Path(sys.executable).parent, folder, env)
            print("the installed duckfast served demo, WSGI and ASGI")
            return
        artifact = options.artifact.resolve()
        check_contents(artifact)
        check_serving(install(artifact, folder, env), folder, env)
        compiler = "no compiler" if options.without_compiler else "a compiler"
        print(f"{artifact.name}: installed into a clean environment with {compiler}, served demo, WSGI and ASGI")


if __name__ == "__main__":
    main()

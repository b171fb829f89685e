"""What ddkit finds on this machine: versions, devices, compiler, memory, folders, plugins."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ddkit.errors import DDKitError
from ddkit.findings import Finding, failed, looked
from ddkit.runtime import storage

if TYPE_CHECKING:
    from ddkit.plugins import Plugins

COMPILERS = ("c++", "g++", "clang++", "cl")
SIGNS = "±…×"  # that results and messages are printed with
LIBRARIES = {
    "torchvision": "the datasets that it reads (cifar, mnist, svhn)",
    "timm": "backbones called timm/…",
}


def environment() -> tuple[list[Finding], Plugins | None]:
    """Look at all of it; also return the plugins, or None where none can be had."""
    found = [
        Finding("ok", "ddkit", version("ddkit")),
        Finding("ok", "Python", f"{platform.python_version()}, {platform.platform(terse=True)}"),
        *looked("torch", _torch),
        *(_library(name, use) for name, use in LIBRARIES.items()),
        compiler(),
        *looked("DDKIT_HOME", lambda: _folder("DDKIT_HOME", storage.home, "FAIL")),
        *looked("DDKIT_DATA", lambda: _folder("DDKIT_DATA", storage.data_root, "note")),
        *looked("cache", _cache),
        _terminal(),
    ]
    about, loaded = _plugins()
    return found + about, loaded


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        advice = "install torch anew, as its site says for this machine"
        raise DDKitError(f"does not import ({_line(error)}); {advice}") from None
    from ddkit.runtime.memory import physical

    cuda = torch.version.cuda
    built = f"CUDA {cuda}" if cuda else "the CPU"
    yield Finding("ok", "torch", f"{torch.__version__}, built for {built}")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield device(f"cuda:{number}", torch.cuda.get_device_name(number))
    if not torch.cuda.is_available():
        if cuda:
            text = "no GPU is found, though torch is built for one: runs go to the CPU"
            yield Finding("note", "device", text)
        elif shutil.which("nvidia-smi"):
            text = "torch is built for the CPU alone, but a GPU may be here: install the CUDA build"
            yield Finding("note", "device", text)
    yield device("cpu", f"{platform.machine()}, {processors()} processors")
    threads, asked = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    text = f"{threads}" + (f" (OMP_NUM_THREADS={asked})" if asked else "")
    if threads > processors():
        text += f", more than the {processors()} processors: set OMP_NUM_THREADS={processors()}"
    yield Finding("note" if threads > processors() else "ok", "threads", text)
    memory = physical(torch.device("cpu"))
    known = f"{memory / 2**30:.1f} GiB for this process" if memory else "not known on this system"
    yield Finding("ok" if memory else "note", "memory", known)


def device(name: str, what: str) -> Finding:
    """Return whether a tiny operation with its gradient works on the device."""
    import torch

    try:
        x = torch.ones(2, 2, device=name, requires_grad=True)
        (x @ x).sum().backward()
        right = x.grad is not None and x.grad.sum().item() == 16
    except RuntimeError as error:
        advice = "mend the driver, or give --device cpu"
        return failed("device", DDKitError(f"{name}, {what}: {_line(error)}; {advice}"))
    if not right:
        return failed("device", DDKitError(f"{name}, {what}: computes wrongly; do not use it"))
    return Finding("ok", "device", f"{name}, {what}")


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _library(name: str, use: str) -> Finding:
    try:
        __import__(name)
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: made for another torch
        text = f"does not import ({_line(error)}): without it there are none of {use}"
        return Finding("note", name, f"{text}; install the one that fits the installed torch")
    return Finding("ok", name, version(name))


def compiler() -> Finding:
    """Return whether there is a C++ compiler, which torch.compile would call."""
    named = os.environ.get("CXX")
    for name in (named,) if named else COMPILERS:
        if found := shutil.which(name):
            return Finding("ok", "compiler", found)
    what = f"CXX={named} is not there" if named else "no C++ compiler"
    text = f"{what}: torch.compile cannot be used; ddkit itself needs none"
    return Finding("note", "compiler", text)


def _folder(variable: str, where: Callable[[], Path], without: str) -> Iterator[Finding]:
    """Yield where a folder is, whether it can be written to, and the space there."""
    try:
        path = where()
    except RuntimeError as error:  # a tilde that leads nowhere
        raise DDKitError(f"{os.environ.get(variable)}: {_line(error)}; set {variable}") from None
    base = storage.existing(path)
    said = f"{path} ({variable})" if os.environ.get(variable) else f"{path} (default)"
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        text = f"{said}: cannot be written; give a folder of yours in {variable}"
        if without == "FAIL":
            raise DDKitError(text)
        yield Finding("note", variable, f"{text}, unless all data is there")
        return
    free = shutil.disk_usage(base).free / 2**30
    kind = "ok" if path.is_absolute() else "note"
    relative = "" if path.is_absolute() else "; relative, so another folder from elsewhere"
    yield Finding(kind, variable, f"{said}, {free:,.1f} GiB free{relative}")  # type: ignore[arg-type]


def _cache() -> Iterator[Finding]:
    sizes: dict[str, int] = {}
    try:
        folder = storage.cache("")
        for kind in sorted(folder.iterdir()) if folder.is_dir() else []:
            sizes[kind.name] = sum(f.stat().st_size for f in kind.rglob("*") if f.is_file())
    except (OSError, RuntimeError) as error:
        raise DDKitError(f"cannot be read ({_line(error)})") from None
    kinds = ", ".join(f"{kind} {size / 2**20:,.1f} MiB" for kind, size in sizes.items())
    yield Finding("ok", "cache", kinds or "empty")


def _terminal() -> Finding:
    stream = sys.stdout
    if stream is None:
        return Finding("note", "terminal", "standard output is closed")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        SIGNS.encode(encoding)
    except (UnicodeError, LookupError):
        text = f"{encoding} has no {SIGNS.encode('ascii', 'backslashreplace').decode()}"
        return Finding("note", "terminal", f"{text}; set PYTHONIOENCODING=utf-8")
    return Finding("ok", "terminal", encoding)


def _plugins() -> tuple[list[Finding], Plugins | None]:
    from ddkit import plugins

    try:
        loaded = plugins.load()
    except DDKitError as error:
        return [failed("plugins", error)], None
    parts = [p for kind in plugins.KINDS for p in getattr(loaded, kind).values()]
    counts: dict[str, int] = {}
    for part in parts:
        counts[part.distribution] = counts.get(part.distribution, 0) + 1
    text = ", ".join(f"{n} {_version(n)} ({count} parts)" for n, count in sorted(counts.items()))
    limited = os.environ.get("DDKIT_LOAD_PLUGINS")
    limit = "" if limited is None else f"; limited by DDKIT_LOAD_PLUGINS={limited}"
    found = [Finding("ok" if parts else "FAIL", "plugins", (text or "none is installed") + limit)]
    for failure in loaded.failures:
        reason = f"{failure.plugin} did not load ({failure.reason}); mend or uninstall it"
        own = failure.plugin.startswith(f"{plugins.BUILTIN}:")
        found.append(
            failed("plugins", DDKitError(reason)) if own else Finding("note", "plugins", reason)
        )
    return found, loaded


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except Exception:  # broken metadata of a stranger's
        return "of unknown version"


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

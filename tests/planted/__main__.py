"""Plant bugs one at a time in a copy of the repository and see whether the tests notice.

    python -m tests.planted                      # all of them, two at a time
    python -m tests.planted engine 'optim*'      # those of a list, those whose names match
    python -m tests.planted --tests-of main~3    # with the tests of another commit: what did a cut cost?

First the tests run without a bug: what fails then cannot notice one. A test of another commit may stand in another file
or have another name, so there the files run as a whole, and beside them those that name the module with the bug.

Needs what the tests need, and for bugs below csrc a compiler, cmake and ninja. It ends with 1 if a bug survives.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import importlib.util
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.planted.bug import Bug

ROOT = Path(__file__).resolve().parents[2]
# Every other module of this folder: its name and its bugs.
LISTS: dict[str, tuple[Bug, ...]] = {
    path.stem: importlib.import_module(f"tests.planted.{path.stem}").BUGS
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if path.stem not in ("__main__", "bug")
}
PATIENCE = 900  # seconds: a test that hangs has noticed, too
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)  # and so has one that dies of it


class Copy:
    """The repository's files in a folder of their own, with the compiled module beside the Python sources."""

    def __init__(self, folder: Path, tests_of: str | None) -> None:
        self.folder, self.is_of_another_commit = folder, bool(tests_of)
        listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT).split("\0")
        for name in filter(None, listed):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        if tests_of:
            shutil.rmtree(folder / "tests")
            archive = subprocess.run(["git", "archive", tests_of, "tests"], cwd=ROOT, capture_output=True, check=True)
            subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
        self.compiled: str | None = None  # the C++ bug or "" that the module was compiled with
        for module in _current_modules():
            shutil.copy2(module, folder / "python/fusedrnn" / module.name)
            self.compiled = ""

    def compile(self, isas: str) -> None:
        build = self.folder / "build"
        pybind11 = _run([sys.executable, "-m", "pybind11", "--cmakedir"], ROOT).strip()
        launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        _run(
            ["cmake", "-S", ".", "-B", str(build), "-G", "Ninja", f"-DFUSEDRNN_ISAS={isas}", *launcher,
             f"-Dpybind11_DIR={pybind11}", f"-DPython_EXECUTABLE={sys.executable}", "-DSKBUILD_PROJECT_VERSION=0.1.0"],
            self.folder,
        )  # fmt: skip
        _run(["cmake", "--build", str(build), "--target", "_core"], self.folder)
        for module in build.rglob("_core.*.so"):
            shutil.copy2(module, self.folder / "python/fusedrnn" / module.name)

    def control(self, bugs: list[Bug]) -> tuple[str, str]:
        """As ``verdict``, of all their tests and no bug: they must pass."""
        if self.compiled is None:
            self.compile("")
            self.compiled = ""
        return self.test(sorted({test for bug in bugs for test in self.tests(bug)}))

    def verdict(self, bug: Bug) -> tuple[str, str]:
        """("caught" | "survived" | "broken", the first failing test or what went wrong)."""
        source = self.folder / bug.file
        right = source.read_text(encoding="utf-8")
        of_engine = bug.file.startswith("csrc/")
        try:
            source.write_text(bug.planted(right), encoding="utf-8")
            state = f"{bug.name} {bug.isas}" if of_engine else ""
            if self.compiled != state:
                self.compile(bug.isas)
                self.compiled = state
            return self.test(self.tests(bug))
        except (subprocess.CalledProcessError, ValueError) as error:
            return "broken", getattr(error, "output", None) or str(error)
        finally:
            source.write_text(right, encoding="utf-8")

    def tests(self, bug: Bug) -> list[str]:
        if not self.is_of_another_commit:
            return bug.tests.split()
        files = {test.split("::")[0] for test in bug.tests.split()}
        module = Path(bug.file).stem
        modules = (path for path in sorted((self.folder / "tests").rglob("test_*.py")) if module in path.read_text())
        named = (path.relative_to(self.folder).as_posix() for path in modules)
        first = sorted(name for name in files if (self.folder / name).exists())
        return [*first, *(name for name in named if name not in files)]

    def test(self, tests: list[str]) -> tuple[str, str]:
        """As ``verdict``, of the copy as it is."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
        where = "import fusedrnn; print(fusedrnn.__file__)"
        found = _run([sys.executable, "-P", "-c", where], self.folder, environment).strip()
        if not Path(found).is_relative_to(self.folder):
            return "broken", f"an editable install at {found} hides the copy: install without -e"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-o", "cache_dir=build/cache", "--no-header", *tests]
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return "caught", f"no answer within {PATIENCE} s"
        last = (done.stdout.strip().splitlines() or [""])[-1]
        if done.returncode == 0:
            return ("survived", last) if " passed" in last else ("broken", f"no test ran: {last}")
        if -done.returncode in CRASHES:
            return "caught", f"the tests crashed: {signal.Signals(-done.returncode).name}"
        failed = re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
        is_test = done.returncode == 1 and failed
        return ("caught", failed[0]) if is_test else ("broken", done.stdout[-2000:] + done.stderr[-2000:])


def _current_modules() -> list[Path]:
    """The compiled modules beside the Python sources, or of the installed package, that no C++ source is newer than:
    bugs in Python need no other."""
    found = importlib.util.find_spec("fusedrnn")
    folders = [ROOT / "python/fusedrnn", *(Path(place) for place in (found and found.submodule_search_locations) or ())]
    newest = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*"))
    modules = (module for folder in folders for module in sorted(folder.glob("_core.*.so")))
    return [module for module in modules if module.stat().st_mtime > newest][:1]


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


def chosen(patterns: list[str]) -> list[Bug]:
    """The bugs of the named lists and those whose names match; all of them for no pattern."""
    bugs = [
        bug
        for name, list_ in LISTS.items()
        for bug in list_
        if not patterns or name in patterns or any(fnmatch.fnmatch(bug.name, pattern) for pattern in patterns)
    ]
    return sorted(bugs, key=lambda bug: (not bug.file.startswith("csrc/"), bug.isas))  # the longest come first


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.planted", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("patterns", nargs="*", metavar="LIST|NAME", help=f"{', '.join(LISTS)}, or a bug's name with *")
    parser.add_argument("--tests-of", metavar="COMMIT", help="plant in the files as they are, test with older tests")
    parser.add_argument("--jobs", "-j", type=int, default=os.cpu_count() or 1, help="bugs at a time (default: cores)")
    parser.add_argument("--list", action="store_true", help="print the names and what each bug changes, run nothing")
    options = parser.parse_args()
    bugs = chosen(options.patterns)
    if not bugs:
        parser.error(f"no bug matches {' '.join(options.patterns)}")
    if options.list:
        for bug in bugs:
            print(f"{bug.name}\n  {bug.file}\n  - {bug.original!r}\n  + {bug.mutated!r}")
        return 0
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies: queue.Queue[Copy] = queue.Queue()
        for k in range(min(options.jobs, len(bugs))):
            copies.put(copy := Copy(Path(folder) / str(k), options.tests_of))
        verdict, why = copy.control(bugs)
        if verdict != "survived":
            print(f"the tests fail without a bug: {why}")
            return 1

        def plant(bug: Bug) -> tuple[Bug, str, str, float]:
            copy, begin = copies.get(), time.monotonic()
            try:
                return (bug, *copy.verdict(bug), time.monotonic() - begin)
            finally:
                copies.put(copy)

        for k, done in enumerate(as_completed([pool.submit(plant, bug) for bug in bugs]), 1):
            bug, verdict, why, seconds = done.result()
            count[verdict] += 1
            print(f"{k:4}/{len(bugs)} {seconds:5.0f} s  {verdict:8}  {bug.name}: {why}", flush=True)
    print(f"{count['caught']} caught, {count['survived']} survived, {count['broken']} broken")
    return int(count["caught"] != len(bugs))


if __name__ == "__main__":
    sys.exit(main())

"""Copies of the tree in which something is changed, what is built of them, and how its tests end."""

import atexit
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import switches

HOME = Path(__file__).resolve().parent.parent
BUILT = Path(os.environ.get("CARGO_TARGET_DIR") or HOME / "target").resolve()
SHOWN_LINES = 60
# A build, and tests, that take this long, in seconds, hang: the machine may be busy.
BUILD_LIMIT, TEST_LIMIT = 1200, 300
# Memory of a test that is out of its mind, in bytes.
MEMORY_MAX = 16 << 30


class Count:
    """Says what passed and what did not, and counts."""

    def __init__(self):
        self.passed, self.failed, self.lock = 0, 0, threading.Lock()

    def good(self, said):
        with self.lock:
            print(said, flush=True)
            self.passed += 1

    def bad(self, said, log=""):
        with self.lock:
            print(said)
            for line in log.splitlines()[-SHOWN_LINES:]:
                print(f"   | {line}")
            sys.stdout.flush()
            self.failed += 1

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


class Processes:
    """All that run, each with its children in a group of its own, which ends with this script."""

    def __init__(self):
        self.running, self.lock = set(), threading.Lock()

    def run(self, words, limit, **options):
        """The output and whether it ended well; what it wrote so far if it took too long."""
        options.setdefault("stderr", subprocess.STDOUT)
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True, **options,
        )
        with self.lock:
            self.running.add(process)
        try:
            output, ended = process.communicate(timeout=limit)[0], True
        except subprocess.TimeoutExpired:
            self.kill(process)
            output, ended = process.communicate()[0] + f"\nkilled after {limit} s: it hangs", False
        finally:
            with self.lock:
                self.running.discard(process)
        return output, ended and process.returncode == 0

    @staticmethod
    def kill(process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def stop(self):
        with self.lock:
            for process in self.running:
                self.kill(process)


def patched(tree, patch, *more):
    """Applies a patch exactly. Whether it fits, and what was said."""
    words = ["patch", f"--directory={tree}", "--force", "-p1", "--fuzz=0", *more]
    done = subprocess.run(words, input=patch, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def texts(tree, files):
    return {file: (Path(tree) / file).read_text() for file in files if (Path(tree) / file).is_file()}


def to_blame(error, merged):
    """The changes that an error of the compiler is about: where it points to, not what it also shows."""
    spans = [span for span in error["spans"] if span["is_primary"] and span["file_name"] in merged]
    return {key for span in spans for key in merged[span["file_name"]].owners(span["line_start"])}


class Room:
    """A directory with a copy of the tree and what is built of it; gone at the end.

    Nothing that is built with a bug may ever be taken for the product: it has a target directory of its own,
    which starts with links to what is built of the dependencies, and a version of its own, by which cargo names
    the files of our crates."""

    def __init__(self, name):
        self.dir = BUILT / name
        self.tree, self.target = self.dir / "tree", self.dir / "target"
        self.processes = Processes()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        atexit.register(shutil.rmtree, self.dir, ignore_errors=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        self.copy(self.tree)
        manifest = self.tree / "Cargo.toml"
        text = manifest.read_text()
        marked = re.sub(r'(\[workspace\.package\]\nversion = "[^"]*)"', r'\1-planted"', text, count=1)
        if marked == text:
            sys.exit("Cargo.toml has no workspace version to mark")
        # Of our own crates only; so they are built in two thirds of the time.
        marked = re.sub(r"(\[profile\.dev\]\ndebug = ).*", r"\1false", marked, count=1)
        # What fails whenever it runs may be compiled: a test has to run it.
        allowed = '[workspace.lints.rust]\narithmetic_overflow = "allow"\nunconditional_panic = "allow"\n'
        manifest.write_text(marked.replace("[workspace.lints.rust]\n", allowed, 1))
        (self.target / "debug").mkdir(parents=True)
        for environment in ("schemathesis", "attacks"):
            (self.target / environment).symlink_to(BUILT / environment)
        for part in ("deps", "build", ".fingerprint"):
            if (BUILT / "debug" / part).is_dir():
                words = ["cp", "-al", str(BUILT / "debug" / part), str(self.target / "debug")]
                subprocess.run(words, check=True)

    def stop(self, *_):
        self.processes.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
        os._exit(130)

    @staticmethod
    def copy(to):
        to.mkdir(parents=True)
        words = 'tar -c --exclude-vcs --exclude=./target --exclude=node_modules . | tar -x -C "$1"'
        subprocess.run(["bash", "-c", words, "tar", str(to)], cwd=HOME, check=True)

    def restore(self, files):
        """Makes files of the tree, and the roots of their crates, what they are at home."""
        roots = {root for file in files if (root := switches.crate_root(HOME, file))}
        for file in set(files) | roots:
            shutil.copy(HOME / file, self.tree / file)

    def cargo(self, *words):
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.target)}
        return self.processes.run(
            ["cargo", *words], BUILD_LIMIT, cwd=self.tree, env=environment, stderr=subprocess.DEVNULL
        )

    def build(self, ways, server):
        """Builds what tests of these ways need, the server too if it is wanted. Gives the test programs by way,
        and the errors of the compiler. The whole workspace is named so that dependencies keep their features."""
        suites = sorted(way.split()[1] for way in ways if way.startswith("suite "))
        kinds = (["--lib"] if "lib" in ways else []) + [word for suite in suites for word in ("--test", suite)]
        base = ["--offline", "--workspace", "--message-format=json"]
        outputs = [self.cargo("test", "--no-run", *base, *kinds)]
        if server:
            outputs.append(self.cargo("build", *base, "--bin", "tern"))
        programs, errors, ended = {}, [], True
        for output, good in outputs:
            ended = ended and good
            for line in output.splitlines():
                said = json.loads(line) if line.startswith("{") else {}
                if said.get("reason") == "compiler-message" and said["message"]["level"] == "error":
                    errors.append(said["message"])
                elif said.get("reason") == "compiler-artifact" and said["profile"]["test"] and said["executable"]:
                    target = said["target"]
                    way = "lib" if "lib" in target["kind"] else f"suite {target['name']}"
                    home = Path(said["manifest_path"]).parent
                    programs.setdefault(way, []).append((said["executable"], home))
        if not ended and not errors:
            errors.append({"rendered": outputs[0][0][-2000:] or "cargo failed", "spans": []})
        return programs, errors

    def merged(self, changes, ways, server):
        """Builds all changes together; `changes` has, by number, the new bodies by file. Takes out of it those that
        do not compile. Gives the test programs."""
        clean = texts(HOME, {file for files in changes.values() for file in files})
        while True:
            merged = switches.write(self.tree, clean, changes)
            programs, errors = self.build(ways, server)
            if not errors:
                return programs
            guilty = {key for error in errors for key in to_blame(error, merged)} & set(changes)
            self.restore(clean)
            if not guilty:
                print("it does not compile", *(error["rendered"] for error in errors[:3]), sep="\n")
                if not changes:
                    return {}
                guilty = set(changes)
            why = "; ".join(sorted({error["message"] for error in errors})[:5])
            print(f"{len(guilty)} of {len(changes)} do not compile: {why}", flush=True)
            for key in guilty:
                del changes[key]


class Tests:
    """The test programs of a build."""

    def __init__(self, room, programs):
        self.room, self.programs, self.names = room, programs, {}
        for found in programs.values():
            for program, home in found:
                output, _ = room.processes.run([program, "--list", "--format=terse"], TEST_LIMIT, cwd=home)
                self.names[program] = re.findall(r"^(.*): test$", output, re.M)

    def paths(self, way, test):
        """The programs, and in each the full names of a test: those of all its wires and implementations."""
        wanted = re.compile(rf"(.*::)?{re.escape(test)}(::[a-z_]+)?")
        for program, home in self.programs.get(way, []):
            if names := [name for name in self.names[program] if wanted.fullmatch(name)]:
                yield program, home, names

    def start(self, program, home, words, bug=0, limit=TEST_LIMIT):
        """The output of a test program and whether it ended well, with a bug."""
        environment = {
            **os.environ, switches.VARIABLE: str(bug), "TERN_WIRE": os.environ.get("TERN_WIRE") or "quic",
            "CARGO_MANIFEST_DIR": str(home), "CARGO_TARGET_DIR": str(self.room.target),
        }
        bound = lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
        return self.room.processes.run(
            [program, *words], limit, cwd=home, env=environment, preexec_fn=bound
        )

    def run(self, way, tests, bug=0):
        """How each test ended, by its name, and what was written. A test is red if one of its name is."""
        by_program, ended, log = {}, {test: set() for test in tests}, ""
        for test in tests:
            for program, home, names in self.paths(way, test):
                by_program.setdefault((program, home), {}).update({name: test for name in names})
        for (program, home), names in by_program.items():
            output, _ = self.start(program, home, ["--exact", *names], bug)
            log += output
            for name, test in names.items():
                # What a test writes by other ways may stand between its name and its end.
                found = re.search(rf"^test {re.escape(name)}(?: - should panic)? \.\.\. .*?(ok|FAILED)$", output, re.M)
                ended[test].add({"ok": "green", "FAILED": "red"}[found[1]] if found else "none")
        return ended, log

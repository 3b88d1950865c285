"""As much of `docker build` as needs no Docker: a stage's steps, run in folders of their own."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass
class Stage:
    """What follows one FROM."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for key, rest in self.steps if key == keyword]


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile, arguments filled in."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    found: list[Stage] = []
    arguments: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, _, rest = line.partition(" ")
        if keyword == "ARG":
            arguments.update([rest.split("=", 1)])
        elif keyword == "FROM":
            for name, value in arguments.items():
                rest = rest.replace(f"${{{name}}}", value)
            found.append(Stage(rest))
        else:
            found[-1].steps.append((keyword, rest.strip()))
    return found


def variables(stage: Stage) -> dict[str, str]:
    """What the stage's ENV lines set."""
    pairs = (part for rest in stage.all("ENV") for part in shlex.split(rest))
    return dict(pair.split("=", 1) for pair in pairs)


def admitted(ignore: str, path: str) -> bool:
    """Whether a file gets past a .dockerignore: the last line that matches it decides."""
    parts = PurePosixPath(path).parts
    names = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    inside = True
    for line in ignore.splitlines():
        rule = line.strip().removeprefix("!")
        if not rule or rule.startswith("#"):
            continue
        anywhere = rule.startswith("**/")
        tried = parts if anywhere else [n for n in names if n.count("/") == rule.count("/")]
        if any(fnmatch.fnmatchcase(name, rule.removeprefix("**/")) for name in tried):
            inside = line.strip().startswith("!")
    return inside


def context(source: Path, target: Path) -> None:
    """Copy what `docker build` would be given of a folder."""
    ignore = (source / ".dockerignore").read_text()
    for folder, folders, names in os.walk(source):
        # not looked into: these are large, and their names tell
        folders[:] = [f for f in folders if f not in {".git", ".hypothesis", ".mypy_cache"}]
        for name in names:
            path = Path(folder, name).relative_to(source)
            if admitted(ignore, path.as_posix()):
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / path, target / path)


def build(stage: Stage, given: Path, root: Path) -> None:
    """Run a stage's steps with `root` for `/`, from a context `given`.

    `python` is the one that runs this. Packages may come from pip's cache.
    """
    work = root
    environment = {
        **{k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_COMPILE": "0",  # pip's way to say --no-compile, which here only saves time
    }
    for keyword, rest in stage.steps:
        if keyword == "WORKDIR":
            work = root / rest.lstrip("/")
            work.mkdir(parents=True, exist_ok=True)
        elif keyword == "ENV":
            for pair in shlex.split(rest):
                name, value = pair.split("=", 1)
                if name != "PIP_NO_CACHE_DIR":
                    value = re.sub(r"^/", f"{root}/", value)
                    environment[name] = value.replace("$PATH", environment["PATH"])
        elif keyword == "COPY":
            *sources, target = rest.split()
            for source in sources:
                end = work / target
                if (given / source).is_dir():
                    shutil.copytree(given / source, end)
                else:
                    if target.endswith("/"):
                        end = end / Path(source).name
                    end.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(given / source, end)
        elif keyword == "RUN":
            done = subprocess.run(
                ["sh", "-c", re.sub(r"(?<=\s)/", f"{root}/", rest)],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"RUN {rest}\n{done.stdout}\n{done.stderr}"
        else:
            raise AssertionError(f"{keyword} is not known here")

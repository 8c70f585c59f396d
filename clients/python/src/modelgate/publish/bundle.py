"""A bundle on disk: its manifest, its digest, what it says of itself. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
SETTINGS = "modelgate.yaml"
GOLDEN = "golden.jsonl"
CONTRACT = "contract.json"
# What modelgate.yaml may say of how clips become frames; the first is what holds where it says nothing.
CHOICES = {"video_sampling": ("linspace", "hf"), "video_rotation": ("ignore", "apply")}
_SETTING = re.compile(r"^([a-z_]+):\s*(.*?)\s*$")


def needs(extra: str, what: str) -> str:
    """The sentence that says which extra something takes, and how it is installed."""
    return f"{what} modelgate[{extra}]: pip install './clients/python[{extra}]' in a checkout of modelgate's repository"


class BundleError(ValueError):
    """The folder is no bundle that the gateway could serve, and why."""


@dataclass(frozen=True)
class File:
    """One entry of a manifest."""

    path: str  # relative, with slashes
    size: int
    sha256: str


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_of(folder: Path) -> list[File]:
    """Every file of a bundle, sorted by the bytes of its path. Links and what isn't a plain file are refused, as the gateway does."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise BundleError(f"{path} is a link or no plain file: a bundle holds files only")
        if any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "\\" for c in name):
            raise BundleError(f"{path!r}: the name holds a control character or a backslash")
        if path.is_file():
            found.append(File(name, path.stat().st_size, sha256_of(path)))
    return sorted(found, key=lambda f: os.fsencode(f.path))


def digest_of(files: list[File]) -> str:
    """The digest of a bundle, as the gateway computes it: over "<sha256> <size> <path>\\n" of every file, sorted by the path's bytes."""
    digest = hashlib.sha256()
    for f in sorted(files, key=lambda f: os.fsencode(f.path)):
        digest.update(f"{f.sha256} {f.size} {f.path}\n".encode())
    return digest.hexdigest()


def seal(folder: Path) -> str:
    """Writes manifest.json, which lists every other file, and returns the digest of the whole."""
    listed = [f for f in files_of(folder) if f.path != MANIFEST]
    if not listed:
        raise BundleError(f"{folder} is empty")
    write_json(folder / MANIFEST, {"files": [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in listed]})
    return digest_of(files_of(folder))


def verify(folder: Path) -> str:
    """Checks a folder against its manifest, if it has one, and returns its digest."""
    found = files_of(folder)
    if (folder / MANIFEST).is_file():
        said = {f["path"]: (f["size"], f["sha256"].lower()) for f in read_json(folder / MANIFEST)["files"]}
        have = {f.path: (f.size, f.sha256) for f in found if f.path != MANIFEST}
        for name in sorted(said.keys() | have.keys()):
            if said.get(name) != have.get(name):
                raise BundleError(
                    f"{folder / name} is not what {MANIFEST} says: (size, sha256) is {have.get(name)}, it says {said.get(name)}"
                )
    return digest_of(found)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as err:
        raise BundleError(f"{path}: {err}") from err


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    """Copies a bundle to where it can be completed; the caller's own folder stays as it is."""
    if not source.is_dir():
        raise BundleError(f"{source} is not a folder: name the folder of a checkpoint or of a bundle")
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(MANIFEST, GOLDEN, CONTRACT, ".git", "__pycache__"))


def graph_of(folder: Path) -> Path | None:
    """The graph, where the gateway looks for it."""
    for place in (folder, folder / "model", folder / "onnx"):
        if (place / "model.onnx").is_file():
            return place / "model.onnx"
        graphs = sorted(place.glob("*.onnx"))
        if len(graphs) == 1:
            return graphs[0]
    return None


def read_settings(folder: Path) -> dict[str, str]:
    """The plain keys of modelgate.yaml."""
    path = folder / SETTINGS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    read = {m[1]: _plain(m[2]) for line in lines if (m := _SETTING.match(line))}
    return {key: value for key, value in read.items() if value}


def _plain(text: str) -> str:
    """A scalar of YAML, as write_settings writes it or as people do, without the comment behind it."""
    if text.startswith('"'):
        try:
            return str(json.JSONDecoder().raw_decode(text)[0])
        except ValueError:  # YAML has escapes that JSON hasn't
            pass
    return "" if text.startswith("#") else text.partition(" #")[0].strip().strip("\"'")


def write_settings(folder: Path, **values: Any) -> None:
    """Puts plain keys into modelgate.yaml in place of what it said; other lines stay."""
    given = {key: value for key, value in values.items() if value is not None}
    if not given:
        return
    path = folder / SETTINGS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if not ((m := _SETTING.match(line)) and m[1] in given)]
    # JSON's scalars are YAML's.
    path.write_text("\n".join([*kept, *(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in given.items())]) + "\n", encoding="utf-8")

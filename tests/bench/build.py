"""Release builds of any commit, each in a git worktree of its own, with line tables for profiles. All under target/bench."""

import os
import shutil
import subprocess

from processes import Trouble
from rig import ROOT

FOLDER = ROOT / "target/bench"


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise Trouble(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def resolve(name):
    """A commit's full hash."""
    return git("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")


def cargo_build(source):
    """Builds there, as the release profile has it; line tables change no instruction."""
    env = os.environ | {"CARGO_TARGET_DIR": str(FOLDER / "build"), "CARGO_PROFILE_RELEASE_DEBUG": "line-tables-only"}
    if subprocess.run(["cargo", "build", "--locked", "--release", "--bin", "cloakroom"], cwd=source, env=env, stdout=2).returncode:
        raise Trouble(f"cargo build in {source} failed")
    return FOLDER / "build/release/cloakroom"


def working_tree():
    """The binary of the checkout as it is now."""
    return cargo_build(ROOT)


def commit(full_hash):
    """The binary of a commit; once built, it is kept."""
    binary = FOLDER / "bin" / full_hash
    if binary.exists():
        return binary
    tree = FOLDER / "tree"
    git("worktree", "prune")
    git("worktree", "add", "--detach", "--force", str(tree), full_hash)
    try:
        built = cargo_build(tree)
        binary.parent.mkdir(parents=True, exist_ok=True)
        part = binary.with_suffix(".part")
        shutil.copy2(built, part)
        part.rename(binary)
    finally:
        git("worktree", "remove", "--force", str(tree))
    return binary

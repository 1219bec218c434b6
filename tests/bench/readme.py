"""The performance section of README.md, between two marks, out of a run."""

from processes import Trouble
from rig import ROOT

BEGIN, END = "<!-- written by tests/bench/run --readme -->\n", "<!-- /written -->\n"


def between_marks(text, words):
    """The text with these words where the old ones were."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest:
        raise Trouble(f"README.md has not once each, and in this order: {BEGIN.strip()} and {END.strip()}")
    return f"{head}{BEGIN}\n{words.strip()}\n\n{END}{tail}"


def rewrite(*parts):
    path = ROOT / "README.md"
    path.write_text(between_marks(path.read_text(), "\n\n".join(part.strip() for part in parts)))

"""Many changes of Rust sources in one build: each is a second body of its function, chosen when it runs.

A change is one file's old text and new text. If all that differs is inside the bodies of functions, those
functions are written as

    fn name(...) -> ... { match crate::planted_bug() { 7 => { new body } _ => { old body } } }

where `planted_bug()` is the number in the variable PLANTED_BUG, read once by each process. A process with
another number, or with none, does what the clean tree does, so each change is tried alone although all were
compiled together. What touches anything else (constants, types, signatures, imports) is not for this.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = "PLANTED_BUG"

SWITCH = """
/// The bug that this process has, by its number; 0 is none.
#[doc(hidden)]
#[allow(dead_code, missing_docs, unreachable_pub)]
pub fn planted_bug() -> u32 {
    static BUG: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *BUG.get_or_init(|| std::env::var("PLANTED_BUG").ok().and_then(|bug| bug.parse().ok()).unwrap_or(0))
}
"""

# Comments, strings and characters, in which braces mean nothing. A lifetime is no character.
_OPAQUE = re.compile(
    r"""//[^\n]*
      | b?r(?P<hashes>\#*)".*?"(?P=hashes)
      | b?"(?:\\.|[^"\\])*"
      | b?'(?:\\(?:u\{[^}]*\}|x[0-9a-fA-F]{2}|.)|[^'\\\n])'
    """,
    re.X | re.S,
)


def masked(text):
    """The text with blanks for comments, strings and characters; every other place stays where it is."""
    out, at = [], 0
    while at < len(text):
        start = re.compile(r"""//|/\*|b?r\#*"|b?"|b?'""").search(text, at)
        if not start:
            break
        begin = start.start()
        if begin > 0 and start.group()[0] in "br" and (text[begin - 1].isalnum() or text[begin - 1] == "_"):
            # The end of a name, not a prefix.
            out.append(text[at : begin + 1])
            at = begin + 1
            continue
        out.append(text[at:begin])
        if start.group() == "/*":
            depth, end = 1, begin + 2
            while depth and end < len(text):
                step = {"/*": 1, "*/": -1}.get(text[end : end + 2], 0)
                depth += step
                end += 2 if step else 1
        else:
            found = _OPAQUE.match(text, begin)
            end = found.end() if found else begin + 1
        out.append(re.sub(r"[^\n]", " ", text[begin:end]) if end > begin + 1 else text[begin:end])
        at = end
    out.append(text[at:])
    return "".join(out)


def closing(mask, at):
    """Behind the brace that closes the one at a place."""
    depth = 0
    for place in re.compile(r"[{}]").finditer(mask, at):
        depth += 1 if place.group() == "{" else -1
        if depth == 0:
            return place.end()
    raise ValueError("a brace is not closed")


@dataclass
class Function:
    """An outermost function: where its signature and its body (with braces) are."""

    start: int
    body: int
    end: int
    switchable: bool


def functions(text):
    """The outermost functions of a file, outside of macros."""
    mask, found, at = masked(text), [], 0
    word = re.compile(r"\bfn\s+\w+|\b\w+\s*!\s*(?:\w+\s*)?\{")
    while place := word.search(mask, at):
        if not place.group().startswith("fn"):
            at = closing(mask, place.end() - 1)
            continue
        depth, body = 0, place.end()
        while depth or mask[body] not in "{;":
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(mask[body], 0)
            body += 1
        at = body + 1
        if mask[body] == "{":
            at = closing(mask, body)
            line = mask.rfind("\n", 0, place.start()) + 1
            const = re.search(r"\bconst\b", mask[line : place.start()])
            opaque = re.search(r"->\s*impl\b", mask[place.start() : body])
            found.append(Function(place.start(), body, at, not const and not opaque))
    return found


def skeleton(text, parts):
    """A file without the bodies of its functions."""
    out, at = [], 0
    for part in parts:
        out.append(text[at : part.body])
        at = part.end
    return "\0".join(out) + "\0" + text[at:]


def bodies(old, new):
    """By the index of a function of the old text: its new body. None if anything else differs."""
    try:
        before, after = functions(old), functions(new)
    except (ValueError, IndexError):
        return None
    if len(before) != len(after) or skeleton(old, before) != skeleton(new, after):
        return None
    changed = {}
    for index, (was, now) in enumerate(zip(before, after)):
        body = new[now.body : now.end]
        if body != old[was.body : was.end]:
            if not was.switchable:
                return None
            changed[index] = body
    return changed or None


@dataclass
class Merged:
    """A file with many bodies; which lines are whose."""

    text: str
    lines: list = field(default_factory=list)

    def owners(self, line):
        """The changes that a line of the file belongs to."""
        return {key for first, last, key in self.lines if first <= line <= last}


def merge(old, changes):
    """One file with all changes: `changes` has, by number, what `bodies` gave."""
    out, at, lines = [], 0, []

    def put(piece):
        out.append(piece)

    for index, part in enumerate(functions(old)):
        arms = [(key, changed[index]) for key, changed in changes.items() if index in changed]
        if not arms:
            continue
        put(old[at : part.body])
        put("{ match crate::planted_bug() {\n")
        for key, body in arms:
            first = "".join(out).count("\n") + 1
            put(f"{key} => {body}\n")
            lines.append((first, first + body.count("\n"), key))
        put(f"_ => {old[part.body : part.end]}\n}} }}")
        at = part.end
    put(old[at:])
    return Merged("".join(out), lines)


def crate_root(tree, file):
    """The lib.rs of the crate of a file, both relative to the tree; None if it has none."""
    path = Path(file)
    if "src" not in path.parts or path.name == "main.rs":
        return None
    root = Path(*path.parts[: path.parts.index("src") + 1]) / "lib.rs"
    return str(root) if (Path(tree) / root).is_file() else None


def write(tree, clean, changes):
    """Writes all changes into a tree: `changes` has, by number, files and what `bodies` gave for each; `clean`
    the clean text by file. Gives the merged files."""
    by_file, roots = {}, set()
    for key, files in changes.items():
        for file, changed in files.items():
            by_file.setdefault(file, {})[key] = changed
            roots.add(crate_root(tree, file))
    merged = {file: merge(clean[file], changed) for file, changed in by_file.items()}
    for root in roots:
        if root not in merged:
            merged[root] = Merged((Path(tree) / root).read_text().removesuffix(SWITCH))
        merged[root].text += SWITCH
    for file, made in merged.items():
        (Path(tree) / file).write_text(made.text)
    return merged

"""Checks of style that no linter has: lengths of files, docstrings, phrases.

python .ci/style.py          # prints what to change; the exit status is 1 if there is something
"""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SOURCES = sorted([*ROOT.glob("jaxmeta/**/*.py"), *ROOT.glob("experiments/**/*.py")])
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/pages/**/*.md"))]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
WITHOUT_DOCSTRING = {"experiments/__init__.py", "jaxmeta/version.py"}

# Phrases that have to be decoded, and what to write.
PHRASES = {
    r"\bwants (a|an|the|one|integer|rows|panels|images|vectors|embeddings)\b": "requires",
    r"\bNone stands for\b": "Defaults to",
    r"(?<!is )(?<!not )(?<!-> )(?<!=)\bNone: ": "Defaults to",
    r"\bsaid of\b": "its predictions, its figures, …",
    r"\bcounts? for nothing\b": "with zero weight",
    r"\bbit for bit\b": "bit-identical",
}

# Beyond its first line a docstring shows how to use the thing, or says where that is written.
SHOWS = (
    r"^>>> ",  # an example
    r"\bSource: ",  # a paper
    r"^Attributes:$",  # the fields of a NamedTuple
    r"\b([Ss]ee|[Aa]s|[Aa]s in) `[\w.]+`",  # another name
)


def lengths() -> Iterator[str]:
    for path in SOURCES:
        lines = len(path.read_text().splitlines())
        if lines > 400:
            yield f"{named(path)}: {lines} lines; split the file, or delete what isn't needed"


def modules() -> Iterator[str]:
    for path in SOURCES:
        if named(path) not in WITHOUT_DOCSTRING and not ast.get_docstring(
            ast.parse(path.read_text())
        ):
            yield f"{named(path)}: no docstring"


def public_names() -> Iterator[str]:
    import jaxmeta

    found = pkgutil.walk_packages(jaxmeta.__path__, "jaxmeta.")
    for package in ["jaxmeta", *(own.name for own in found if own.ispkg)]:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            if fault := docstring_fault(name, getattr(module, name)):
                yield f"{package}.{name}: {fault}"


def docstring_fault(name: str, value: object) -> str | None:
    ours = getattr(value, "__module__", "").startswith("jaxmeta")
    if not (ours and (inspect.isclass(value) or inspect.isfunction(value))):
        return None  # a module, a value, or a name for JAX's own
    explained = inspect.getdoc(value) or ""
    if not explained or explained.startswith(f"{name}("):  # that which NamedTuple makes
        return "no docstring"
    if inspect.isclass(value) and issubclass(value, Exception):
        return None  # raised, not used
    if getattr(value, "_is_protocol", False):
        shown = re.match(r"`.+ -> .+`", explained)
        return None if shown else "a protocol's docstring begins with how it is called"
    forms = (*SHOWS, rf"^ {{4}}.*\b{name}\(")  # or a call of it, where none can be run
    if any(re.search(form, explained, re.MULTILINE) for form in forms):
        return None
    return "no example (>>>), `Source:`, `Attributes:` or see `name`"


def phrases() -> Iterator[str]:
    texts = [(path, path.read_text()) for path in (*SOURCES, *PAGES)]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        texts.append((path, "\n".join("".join(cell["source"]) for cell in cells)))
    for path, text in texts:
        for number, line in enumerate(text.splitlines(), 1):
            for phrase, better in PHRASES.items():
                if re.search(phrase, line):
                    yield f"{named(path)}:{number}: {line.strip()!r}; better: {better}"


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def main() -> int:
    faults = [fault for check in (lengths, modules, public_names, phrases) for fault in check()]
    print(*faults, sep="\n", end="\n" if faults else "")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

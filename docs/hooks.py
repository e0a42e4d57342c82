"""Fills the pages from the repository when the site is built, so that texts are kept only once.

A page may contain these lines:

    <!-- CONTRIBUTING.md: Design rules -->     the text under that heading
    ::: jaxmeta.learners.metric               the docstring of a module
    <!-- table: jaxmeta.learners.metric -->   its learners with first line and source
    <!-- entries: jaxmeta.learners.metric --> all its public names

A file outside the pages that a page links to, `../../experiments/results/...`, becomes part of the
site.

A name that several packages export has its entry under the deepest of them (`maml` under
`jaxmeta.learners.gradient`), and all its paths link there.
"""

import importlib
import inspect
import posixpath
import re
from functools import partial
from pathlib import Path
from types import ModuleType
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = Path(__file__).parent / "pages"


# The public names and their entries


def public(module: ModuleType) -> list[str]:
    """`__all__` without modules; without `__all__`, the functions and classes of the module."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    own = (name for name in vars(module) if not name.startswith("_"))
    return [n for n in own if getattr(vars(module)[n], "__module__", None) == module.__name__]


def explained(line: str) -> list[str]:
    """The modules named by such lines of the pages, deepest first."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in PAGES.rglob("*.md"))
    modules = re.findall(line, pages, flags=re.MULTILINE)
    return sorted(modules, key=lambda name: -name.count("."))


def homes() -> dict[str, str]:
    """Maps every path of a public name to the path of its entry."""
    found: dict[str, str] = {}
    entry: dict[tuple[str, int], str] = {}
    for module in explained(r"^<!-- entries: ([\w.]+) -->$"):
        for name in public(importlib.import_module(module)):
            path = f"{module}.{name}"
            value = getattr(importlib.import_module(module), name)
            found[path] = entry.setdefault((name, id(value)), path)
    return found


HOMES = homes()
MODULES = {name: name for name in explained(r"^::: ([\w.]+)$")}


def alone() -> dict[str, str]:
    """Exported names that can be linked without their path: no argument has the same name."""
    found, arguments = {}, set()
    for path, home in HOMES.items():
        module, _, name = path.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        if inspect.isfunction(value):
            arguments |= {*inspect.signature(value).parameters}
        if hasattr(importlib.import_module(module), "__all__"):
            found[name] = home
    return {name: home for name, home in found.items() if name not in arguments}


LINKS = HOMES | MODULES | alone()


def members(module: str) -> list[str]:
    """Entries under a module: functions, classes, values; at the root, classes first."""
    values = vars(importlib.import_module(module))
    kinds = [inspect.isfunction, inspect.isclass][:: -1 if module == "jaxmeta" else 1]

    def place(name: str) -> tuple[bool | str, ...]:
        return (*(not kind(values[name]) for kind in kinds), name.lower())

    here = [path for path, home in HOMES.items() if path == home]
    names = [path.rpartition(".")[2] for path in here if path.rpartition(".")[0] == module]
    return sorted(names, key=place)


# Lines of a page that are replaced


def section(file: str, heading: str) -> str:
    """The text between a heading and the next."""
    inside, fenced, lines = False, False, []
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (title := re.match(r"#+ (.*)", line)):
            inside = title[1] == heading
        elif inside:
            lines.append(line)
    if not lines:
        raise ValueError(f"{file} has no text below a heading {heading!r}")
    return "\n".join(lines).strip()


def table(module: str) -> str:
    rows = ["| | description | source |", "|---|---|---|"]
    for name in members(module):
        value = getattr(importlib.import_module(module), name)
        if inspect.isfunction(value):
            text = inspect.getdoc(value) or ""
            source = re.search(r"Source: (.+?)(?:\n\n|\Z)", text, re.DOTALL)
            cells = (
                f"[`{name}`][{HOMES[f'{module}.{name}']}]",
                text.partition("\n")[0],
                source[1] if source else "",
            )
            rows.append("| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |")
    return "\n".join(rows)


def entries(module: str) -> str:
    options = "options: {show_root_heading: true}"
    return "\n\n".join(f"::: {module}.{name}\n    {options}" for name in members(module))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def written(match: re.Match[str]) -> str:
        kind, what = match.groups()
        return {"table": table, "entries": entries}.get(kind, partial(section, kind))(what)

    def linked(match: re.Match[str]) -> str:
        if files.get_file_from_path(match[1]) is None:
            files.append(outside(match[1], config))
        return f"]({posixpath.relpath(match[1], posixpath.dirname(page.file.src_uri))})"

    markdown = re.sub(r"\]\((?:\.\./)+(experiments/[^)]+)\)", linked, markdown)
    # The markers of `experiments.table` have the same form, with another first word.
    return re.sub(
        r"^<!-- (table|entries|CONTRIBUTING\.md): (.+?) -->$",
        written,
        markdown,
        flags=re.MULTILINE,
    )


# Notebooks are outside this folder


def outside(path: str, config: MkDocsConfig) -> File:
    """A file of the repository, as a file of the site."""
    return File(path, str(ROOT), config.site_dir, config.use_directory_urls)


def notebooks() -> list[str]:
    found = ROOT.glob("notebooks/*.ipynb")
    in_order = sorted(found, key=lambda path: int(path.name.partition("_")[0]))
    return [path.relative_to(ROOT).as_posix() for path in in_order]


@event_priority(100)  # before the plugin that makes pages of notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in notebooks():
        files.append(outside(path, config))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between notebooks into links between their pages."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="(?:\./)?(\w+)\.ipynb"', r'href="../\1/"', html)


@event_priority(100)  # before the plugin that reads docstrings
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    nav = [
        {"Notebooks": notebooks()} if "Notebooks" in entry else entry for entry in config.nav or []
    ]
    config.nav = [entry for entry in nav if entry != {"Notebooks": []}]
    config.markdown_extensions.append(Docstrings())
    return config


# Markdown of docstrings


class Examples(Preprocessor):
    """Lines from `>>>` to the next empty line become a block of code."""

    def run(self, lines: list[str]) -> list[str]:
        written: list[str] = []
        inside = False
        for line in [*lines, ""]:
            if not inside and line.startswith(">>> "):
                written += ["", "```pycon"]
                inside = True
            elif inside and not line.strip():
                written.append("```")
                inside = False
            written.append(line)
        return written


class Links(Treeprocessor):
    """Link a public name in backticks, with or without a call, to its entry."""

    def run(self, root: Element) -> None:
        for parent in list(root.iter()):
            if re.fullmatch(r"a|pre|autoref|h\d", str(parent.tag)):
                continue
            for index, child in enumerate(list(parent)):
                named = re.fullmatch(r"([\w.]+)(\(.*\))?", "".join(child.itertext()))
                entry = named and LINKS.get(named[1])
                if child.tag == "code" and entry:
                    link = Element("autoref", {"identifier": entry})
                    link.append(child)
                    link.tail, child.tail = child.tail, None
                    parent[index] = link


class Docstrings(Extension):
    def extendMarkdown(self, md: Markdown) -> None:
        md.preprocessors.register(Examples(md), "examples", 40)  # before blocks of code
        md.treeprocessors.register(Links(md), "links", 15)  # after inline markup

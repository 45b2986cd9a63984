"""Links lead somewhere, commands name files and flags that exist, functions named are there."""

import importlib
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("[!.]*/README.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / unquote(name) if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def anchors(page):
    """The anchors that GitHub gives the page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def commands():
    """Every `python …` command of the pages, on a line of its own or within one, as words."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES).replace("\\\n", " ")
    found = re.findall(r"(?:^(?:    )?|`)python ([^`\n]+)", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in dict.fromkeys(found)]


NO_CONSTANTS = ("--data-dir", "--models-dir", "--resume", "--like")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_name_scripts_and_flags_that_exist(words):
    script = ROOT / words[0]
    if not script.exists():
        script = ROOT / "Train&Test" / words[0]
    source = script.read_text(encoding="utf-8")
    for flag in words[1:]:
        if flag.startswith("--") and flag not in NO_CONSTANTS:
            name = flag[2:].removeprefix("no-").replace("-", "_").upper()
            assert re.search(rf"^{name} = ", source, re.MULTILINE), flag


def test_functions_named_in_the_method_page_exist():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    names = re.findall(r"`(glr\.\w+)\.(\w+)`", text)
    assert len(names) > 8
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_constants_named_in_the_method_page_are_in_the_scripts():
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    source = (ROOT / "Train&Test" / "LRS.py").read_text(encoding="utf-8")
    known = re.findall(r"^([A-Z_]+) = ", source, re.MULTILINE)
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", text)) - {
        "PIECE_COLUMNS",
        "BLOCK_FLOATS",
        "KEPT_FLOATS",
        "HALVED_COST",
    }
    assert len(named) > 8
    assert named <= set(known)

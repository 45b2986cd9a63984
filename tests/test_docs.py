"""Links lead somewhere, commands and code work as they stand, what is named is there."""

import pydoc
import re
import runpy
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from glr.scripts.constants import script_constants

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("[!.]*/README.md")]
PAGES.append(ROOT / "CONTRIBUTING.md")
README, METHOD = PAGES[0].read_text("utf-8"), (ROOT / "docs" / "method.md").read_text("utf-8")
CONTRIBUTING = PAGES[-1].read_text("utf-8")
RECIPES = (ROOT / "docs" / "recipes.md").read_text("utf-8")
CODE = re.findall(r"```python\n(.*?)```", README + RECIPES, re.DOTALL)


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


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_of_scripts_that_take_them(words, monkeypatch):
    """With the recipes' own functions in the script, as the commands with these have it."""
    monkeypatch.chdir(ROOT)
    path = ROOT / words[0]
    if path.name == "peers.py":
        pytest.importorskip("jax", reason="JAX is not installed: requirements-jax.txt")
    script = runpy.run_path(str(path if path.exists() else ROOT / "Train&Test" / words[0]))
    for code in CODE:
        if "def " in code:
            exec(code, script)
    script_constants(script, [word for word in words[1:] if word != "-h"])


@pytest.mark.parametrize("code", CODE)
def test_the_code_of_readme_and_recipes_runs(code):
    exec(code, {})


def test_the_readme_is_two_screens():
    assert len(README) < 8000


@pytest.mark.parametrize("name", sorted(set(re.findall(r"make (\w+)", README + CONTRIBUTING))))
def test_what_the_pages_make_is_a_target(name):
    assert re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_what_the_pages_name_in_glr_is_there():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = set(re.findall(r"`(glr(?:\.\w+)+)", text))
    assert len(names) > 8
    assert not [name for name in names if pydoc.locate(name) is None]


def test_constants_named_in_the_method_page_are_in_the_scripts():
    known = re.findall(r"^([A-Z_]+) = ", (ROOT / "Train&Test" / "LRS.py").read_text(), re.MULTILINE)
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", METHOD))
    assert len(named) > 8
    assert named <= set(known)

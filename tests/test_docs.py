"""The documentation names what there is: every method, room, figure, script and link, and nothing else."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import jdp
from jdp import registry
from jdp.diffusion import FORMULATIONS, guidance, samplers

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ROOMS = sorted(name for name in jdp.__all__ if inspect.ismodule(getattr(jdp, name)))
GUIDANCE = {name for name in guidance.__all__ if inspect.isfunction(getattr(guidance, name))}
KINDS = {
    "Agents": "agent",
    "Online agents": "online",
    "Planners": "planner",
    "Policies": "policy",
    "Fine-tuners": "fine_tuner",
    "Alignment": "alignment",
    "World models": "world_model",
}
METHODS = {
    **{section: set(registry.entries(kind)) for section, kind in KINDS.items()},
    "Samplers": {*samplers.SAMPLERS, "consistency", "flow_map"},
    "Guidance": GUIDANCE - {"normalise_safely"},
    "Formulations and flow maps": {*FORMULATIONS, "consistency", "shortcut"},
    "Functions": set(),
}
# Systems of papers, and what each is here: a registered method, or None for functions (docs/systems.toml).
SYSTEMS = {
    **{"RTI": "rti", "Streaming": "streaming", "DiffusionDrive": "diffusion_drive", "BAC": None},
    **{"real-time chunking": None, "Trajectory Diffuser": "trajectory_diffuser", "MoDE": "mode", "HDP": None},
    **{"EBT-Policy": "ebt", "NoMaD": "nomad", "SeedPolicy": "seed_policy", "FDP": "fdp", "RDP": "rdp"},
    **{"ImplicitRDP": "implicit_rdp", "PAD": "pad", "3D Diffuser Actor": "diffuser_actor"},
    **{"Diffusion-VLA": "diffusion_vla", "GPC": None, "UMI-on-Air (EADP)": None, "pSTL diffusion": None},
    **{"DIP": None, "online CBFs": None, "AlignDiff": "align_diff", "CFGRL": "cfgrl"},
    **{"XDiffuser": "graph_guided", "CompDiffuser": "comp_diffuser", "DiTree": None, "GLIDE": None},
    **{"DiffuSearch": None, "Overview of diffusion models": None, "HiPER": None, "HiMAC": None},
    **{"HGPO": None, "HBPO": None, "GMAH": None, "CTHA": None, "novelty-seeking": None, "AirLLM": None},
    **{"AdaptDHM": None, "BehaveGPT": None, "MasHost": None, "CRAFT-GUI": None, "PCDM": None},
    **{"Decentralized Diffusion Models": None, "HierarchicalPrune": None, "gauge freedom": None},
}


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def methods_page(hooks):
    """docs/methods.md as a reader sees it."""
    return hooks.on_page_markdown((ROOT / "docs" / "methods.md").read_text())


def sections(text):
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_cells(text):
    return [row.split("|")[1] for row in text.splitlines() if row.startswith(("| `", "| [`"))]


def test_the_table_of_methods_has_a_row_for_every_method_and_no_other(methods_page):
    found = sections(methods_page)
    assert found.keys() == METHODS.keys()
    for section, names in METHODS.items():
        listed = re.findall(r"`(\w+)`", " ".join(first_cells(found[section])))
        assert sorted(listed) == sorted(names), section


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_row_is_what_the_methods_file_says_of_itself(hooks, kind):
    rows = hooks.methods(kind).splitlines()[2:]
    for row, (name, entry) in zip(rows, registry.entries(kind).items(), strict=True):
        assert entry.title and entry.idea, name
        assert re.search(r"\d{4}\.\d{4,5}", entry.paper) or entry.departures, name  # whose it is
        assert all(text in row for text in (f"`{name}`", entry.idea, entry.departures)), name
        target = re.findall(r"\]\[([\w.]+)\]", row)[0]
        home, _, last = target.rpartition(".")
        assert last in hooks.defined(home) and home in hooks.modules(registry.ROOMS[kind]), target
        assert row.count("|") == 5, row  # no text of a method breaks the table


def test_every_paper_of_the_table_is_cited_where_the_method_is(methods_page):
    source = "".join(path.read_text() for path in (ROOT / "jdp").rglob("*.py"))
    linked = re.findall(r"\[(\d{4}\.\d{5})\]\(https://arxiv\.org/abs/(\d{4}\.\d{5})\)", methods_page)
    assert len(linked) == len(re.findall(r"arxiv\.org", methods_page)) > 30
    for shown, target in linked:
        assert shown == target and shown in source, shown


def test_every_system_has_its_row_and_says_what_transfers_and_what_does_not(hooks, methods_page):
    rows = {row["title"]: row for row in hooks.rows_of_systems()}
    registered = {name for kind in KINDS.values() for name in registry.entries(kind)}
    for system, method in SYSTEMS.items():
        assert (system in rows) == (method is None), system
        assert method is None or method in registered, system
    known_by_themselves = {"likelihood of the probability flow", "intrinsic dimension"}
    assert set(rows) - set(SYSTEMS) == known_by_themselves
    for title, row in rows.items():
        assert row["transfers"] and (row["leaves"] or title in known_by_themselves), title
        assert f"| {title} (" in methods_page and row["here"], title
        for target in row["here"]:
            pkgutil.resolve_name(target)
            home = target if hooks.source(target).exists() else target.rpartition(".")[0]
            assert home == target or target.rpartition(".")[2] in hooks.defined(home), target
    pages = {row["page"] for row in rows.values()}
    for page in pages - {"realtime", "steering"}:  # these show how each is had, beside the methods
        shown = hooks.on_page_markdown((ROOT / "docs" / f"{page}.md").read_text())
        titles = [title for title, row in rows.items() if row["page"] == page]
        assert all(f"| {title} (" in shown for title in titles), page


def test_the_readme_counts_what_is_registered():
    readme = (ROOT / "README.md").read_text()
    (text,) = re.findall(r"<!-- counts -->\n(.*?)<!-- end counts -->", readme, re.DOTALL)
    for section, kind in KINDS.items():
        words = {
            "policy": "diffusion policies",
            "fine_tuner": "fine-tuner",
            "alignment": "methods of alignment",
        }
        word = words.get(kind, section.lower())
        assert re.findall(rf"(\d+) {word}", text) == [str(len(registry.entries(kind)))], kind


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_leads_to_its_definition_in_the_reference(hooks, room):
    module = importlib.import_module(f"jdp.{room}")
    names = hooks.exported(f"jdp.{room}")
    assert names == getattr(module, "__all__", names) and len(set(names)) == len(names)
    pages = set(hooks.modules(f"jdp.{room}"))
    for name in names:
        target = hooks.resolve(f"jdp.{room}", name)
        if target in pages:  # a module
            assert importlib.import_module(target) is getattr(module, name)
            continue
        home, _, last = target.rpartition(".")
        assert last in hooks.defined(home), target
        assert getattr(importlib.import_module(home), last) is getattr(module, name)
        assert home in pages or not home.startswith(f"jdp.{room}"), target
    assert f"{{{{ room: {room} }}}}" in (ROOT / "docs" / "reference" / f"{room}.md").read_text()
    assert f"reference/{room}.md" in (ROOT / "mkdocs.yml").read_text()


def test_every_relative_link_leads_somewhere(hooks):
    for page in [*PAGES, ROOT / "README.md"]:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)", prose):
            assert (page.parent / target).exists(), (page.name, target)
    for heading in re.findall(r"\{\{ readme: (.+?) \}\}", (ROOT / "docs" / "index.md").read_text()):
        assert len(hooks.readme(heading)) > 100


def test_a_module_in_brackets_leads_to_the_reference(hooks):
    shown = hooks.on_page_markdown("[`jdp.diffusion.haar`][], [`jdp.policies.cached.cached`][]")
    module, function = shown.split(", ")
    assert module == "[`jdp.diffusion.haar`](reference/diffusion.md#jdp.diffusion.haar)"
    assert function == "[`jdp.policies.cached.cached`][]"  # mkdocstrings knows it


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES:
        assert str(page.relative_to(ROOT / "docs")) in text, page


def test_the_gallery_shows_every_figure_and_commands_that_exist():
    gallery = (ROOT / "docs" / "gallery.md").read_text()
    for image in (ROOT / "docs" / "images").iterdir():
        assert f"](images/{image.name})" in gallery, image.name
    for page in PAGES:
        for script in re.findall(r"python ((?:experiments|benchmarks)/\w+\.py)", page.read_text()):
            assert (ROOT / script).exists(), (page.name, script)


def test_a_section_that_the_readme_lost_is_named(hooks):
    with pytest.raises(SystemExit, match="no section 'How to fly'"):
        hooks.on_page_markdown("{{ readme: How to fly }}")


def blocks(page):
    """The Python of a page, as syntax trees."""
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        if "--8<--" not in code:
            yield ast.parse(code)


def named(tree):
    """The dotted names of jdp that code imports or uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jdp":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and (text := ast.unparse(node)).startswith("jdp."):
            yield text


def test_all_that_code_in_the_documentation_names_exists():
    found = {
        (p.name, name) for p in [*PAGES, ROOT / "README.md"] for tree in blocks(p) for name in named(tree)
    }
    assert len(found) > 40
    missing = []
    for page, name in sorted(found):
        try:
            pkgutil.resolve_name(name)
        except (AttributeError, ImportError):
            missing.append((page, name))
    assert not missing

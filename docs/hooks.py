"""What mkdocs builds from other files: sections of the README, the reference of rooms, tables of methods.

`{{ readme: Two commands }}` stands for that section, `{{ readme }}` for what comes before the first one,
`{{ room: agents }}` for all public names of `jdp.agents`, `{{ methods: agent }}` for the agents that are
registered, `{{ systems }}` for the papers of docs/systems.toml, `{{ systems: hierarchy }}` for those of a
page, and `{{ pretrained }}` for the models that come with jdp. A section or name that is gone ends a strict
build. A module in brackets, [`jdp.diffusion.haar`][], becomes a link to its place in the reference, as names
that mkdocstrings knows do by themselves.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown, page=None, **_):
    markdown = re.sub(r"\{\{ readme(?:: (.+?))? \}\}", lambda found: readme(found[1]), markdown)
    markdown = re.sub(r"\{\{ methods: (\w+) \}\}", lambda found: methods(found[1]), markdown)
    markdown = re.sub(r"\{\{ systems(?:: (\w+))? \}\}", lambda found: systems(found[1]), markdown)
    markdown = re.sub(r"\{\{ pretrained \}\}", lambda _: pretrained(), markdown)
    markdown = re.sub(r"\{\{ room: (\w+) \}\}", lambda found: room(f"jdp.{found[1]}"), markdown)
    up = "../" * (page.file.src_uri.count("/") if page else 0)
    return re.sub(r"\[`(jdp\.[\w.]+)`\]\[\]", lambda found: to_module(found, up), markdown)


def to_module(found, up):
    """A link to a module in the reference; a function, which mkdocstrings links, stays as it is."""
    target = found[1]
    where = f"{up}reference/{target.split('.')[1]}.md#{target}"
    return f"[`{target}`]({where})" if source(target).exists() else found[0]


def methods(kind):
    """A table of all registered methods of a kind; each name leads to the reference."""
    from jdp import registry

    rows = ["| name | the idea | paper | departs |", "|---|---|---|---|"]
    for name, entry in registry.entries(kind).items():
        target = f"{entry.make.__module__}.{entry.make.__name__}"
        rows.append(f"| [`{name}`][{target}] | {entry.idea} | {papers(entry.paper)} | {entry.departures} |")
    return "\n".join(rows)


def rows_of_systems(page=None):
    """The rows of docs/systems.toml, all or those of one page."""
    rows = tomllib.loads((ROOT / "docs" / "systems.toml").read_text())["system"]
    return [row for row in rows if page in (None, row["page"])]


def systems(page):
    """A table of the systems that are functions here: what of each transfers, and what does not."""
    if not (rows := rows_of_systems(page)):
        raise SystemExit(f"docs/systems.toml has no system of the page {page!r}")
    lines = ["| system | here | what transfers | what does not |", "|---|---|---|---|"]
    for row in rows:
        here = ", ".join(named(target) for target in row["here"])
        cells = [f"{row['title']} ({papers(row['paper'])})", here, papers(row["transfers"]), row["leaves"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def named(target):
    """A module by its whole name, a function by its own, which leads to what mkdocstrings writes of it."""
    return f"[`{target}`][]" if source(target).exists() else f"[`{target.rpartition('.')[2]}`][{target}]"


def pretrained():
    """A table of the models that come with jdp, from their cards."""
    from jdp.runs.stores import find, names, read_weights

    rows = ["| name | holds | dataset | score | command | MB |", "|---|---|---|---|---|---|"]
    for name in names():
        card, size = read_weights(find(name))[0], find(name).stat().st_size / 1e6
        run, holds = card["run"], ", ".join(card["phases"])
        cells = [f"`{name}`", holds, run["dataset"], scored(card), f"`{run['command']}`", f"{size:.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def scored(card):
    """What the card of a model says of it: a score, or of a diffuser its dynamics error."""
    scores, seed = card["scores"], card["training_seed"]
    for phase in card["phases"]:
        found = scores.get("arms", {}).get(phase, scores if "arms" not in scores else None)
        if found is not None:
            return (
                f"{scores.get('score_name', 'score')} {found['seeds'][seed]:.1f} ({found['interval'][0]:.1f})"
            )
    return f"dynamics error {scores['checks']['sets']['unguided']['dynamics_median']:.1e}"


def papers(text):
    """arXiv numbers as links."""
    return re.sub(r"(?:arXiv )?(\d{4}\.\d{4,5})", r"[\1](https://arxiv.org/abs/\1)", text)


def readme(section):
    """A section of the README without its heading; its links as seen from docs/."""
    text = re.sub(r"<!--.*?-->\n?", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    found = dict(zip(["", *parts[1::2]], [parts[0].partition("\n")[2], *parts[2::2]], strict=True))
    if (section or "") not in found:
        raise SystemExit(f"README.md has no section {section!r}, which a page of docs/ shows")
    text = found[section or ""].replace("](docs/", "](")
    # What lies outside of docs/ is named, not linked.
    return re.sub(r"(?<!!)\[([^]]+)\]\((?!https?:|#)([^)#]+)([^)]*)\)", _link, text)


def _link(found):
    return found[0] if (ROOT / "docs" / found[2]).exists() else found[1]


def room(name):
    """The public names of a room, each a link to where it is defined, and what its files define."""
    public = exported(name)
    links = ", ".join(link(n, resolve(name, n)) for n in public)
    return "\n".join([links, *(reference(module) for module in modules(name))])


def link(name, target):
    """To a module's heading on this page, or to what mkdocstrings writes of anything else."""
    return f"[`{name}`](#{target})" if source(target).exists() else f"[`{name}`][{target}]"


def reference(module):
    """What mkdocstrings replaces by a module's docstring and the documentation of what it defines itself."""
    members = [n for n in defined(module) if not n.startswith("_")]
    heading = f'## {module} {{ id="{module}" }}'
    return f"\n{heading}\n\n::: {module}\n    options:\n      members: {members or False}\n"


def modules(name):
    """The module `name` and those in it, in the order of the alphabet."""
    if source(name).name != "__init__.py":
        return [name]
    inside = [p for p in source(name).parent.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    names = sorted(p.stem for p in inside if not p.stem.startswith("_"))
    return [name, *(m for n in names for m in modules(f"{name}.{n}"))]


def source(module):
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def exported(module):
    """`__all__` of a module, without running it; the names it defines where it has none."""
    for node in ast.parse(source(module).read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return ast.literal_eval(node.value)
    return [n for n in defined(module) if not n.startswith("_")]


def defined(module):
    """The names that a module defines itself."""
    names = []
    for node in ast.parse(source(module).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            names += [target.id] if isinstance(target, ast.Name) and target.id != "__all__" else []
    return names


def resolve(module, name):
    """Where `name` of `module` is defined: "jdp.agents.awac.awac" for "awac" of "jdp.agents"."""
    for node in ast.parse(source(module).read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jdp"):
            for alias in node.names:
                if (alias.asname or alias.name) == name and node.module == module:
                    return f"{module}.{name}"  # a module of this package
                if (alias.asname or alias.name) == name:
                    return resolve(node.module, alias.name)
    return f"{module}.{name}"

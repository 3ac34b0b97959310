"""Fields of classes as one table, their comments as its text: `action: Array  # [B, A], within [-1, 1]`."""

import re

import griffe


class Comments(griffe.Extension):
    def on_attribute_instance(self, *, attr, **_):
        """The comment on the line of a field or constant; in classes those on the lines below it too."""
        if attr.docstring or attr.lineno is None or attr.parent is None:
            return
        lines = attr.lines_collection[attr.filepath]
        found = [lines[(attr.endlineno or attr.lineno) - 1].partition("  # ")[2]]
        for line in lines[attr.endlineno or attr.lineno :] if attr.parent.is_class else []:
            if not line.strip().startswith("# "):
                break
            found.append(line.strip()[2:])
        text = re.sub(r"(type: ignore|noqa|fmt:|pyright:).*", "", " ".join(found)).strip()
        if text:
            attr.docstring = griffe.Docstring(text, lineno=attr.lineno, parent=attr)

    def on_package(self, *, pkg, **_):
        for module in pkg.modules.values():
            if not module.is_alias:
                self.on_package(pkg=module)
        for cls in [] if pkg.is_alias else pkg.classes.values():
            if not cls.is_alias:
                tabulate(cls)


def tabulate(cls):
    """Moves the fields of a class into a section of its docstring."""
    rows = []
    for name, field in list(cls.members.items()):
        if field.is_alias or not field.is_attribute or name.startswith("_"):
            continue
        if "property" not in field.labels:
            text = " ".join(field.docstring.value.split()).rstrip(".") + "." if field.docstring else ""
            default = "" if field.value is None else f"Default: `{field.value}`."
            rows.append(f"    {name} ({field.annotation or ''}): {' '.join([text, default]).strip()}")
            del cls.members[name]
    if rows:
        before = cls.docstring.value if cls.docstring else ""
        text = "\n".join([before, "", "Attributes:", *rows])
        cls.docstring = griffe.Docstring(
            text, lineno=cls.lineno, parent=cls, parser="google", parser_options={"warnings": False}
        )

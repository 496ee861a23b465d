"""The table of variables in the role's README, made from meta/argument_specs.yml.

    python -m tests.ansible.readme          write it anew

Changes nothing but what stands between the two marks.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

COLLECTION = Path(__file__).parents[2] / "ansible"
ROLE = COLLECTION / "roles/gevproxy"
README = ROLE / "README.md"
BEGIN = "<!-- made from meta/argument_specs.yml by python -m tests.ansible.readme -->\n"
END = "<!-- end -->\n"


def read(path: str) -> Any:  # noqa: ANN401 - whatever the YAML holds
    """Return what a YAML file of the role holds."""
    return yaml.safe_load((ROLE / path).read_text())


def options(entry: str = "main") -> dict[str, dict[str, Any]]:
    """Return the variables of an entry point of the role, as its specification has them."""
    found: dict[str, dict[str, Any]] = read("meta/argument_specs.yml")["argument_specs"][entry][
        "options"
    ]
    return found


def table() -> str:
    """Return the table, one line for each variable."""
    rows = ["| variable | type | default | meaning |\n", "|---|---|---|---|\n"]
    for name, option in options().items():
        kind = " or ".join(f"`{choice}`" for choice in option.get("choices", ()))
        if option["type"] == "list":
            kind = f"list of {option['elements']}"
        rows.append(
            f"| `{name}` | {kind or option['type']} | {_default(option)} "
            f"| {option['description'].strip()} |\n"
        )
    return "".join(rows)


def _default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return ""
    value = option["default"]
    if "{{" in str(value):
        return "see right" if "gevproxy__" in value else f"`{value}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def written(text: str) -> str:
    """Return a README with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
    sys.exit(0)

"""Pages: every generated section renewed, or compared."""

import re
import sys
from collections.abc import Callable

from docs_from_code.code import checks, file, help_pages, hooks, layers, modules
from docs_from_code.common import DOCS, ROOT
from docs_from_code.facts import action_spaces, layouts, plans
from docs_from_code.fields import fields
from docs_from_code.mistakes import mistakes
from docs_from_code.results import study

SECTION = re.compile(r"(<!-- generated: (?P<words>.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
GENERATORS: dict[str, Callable[..., str]] = {
    "fields": fields,
    "file": file,
    "hooks": hooks,
    "checks": checks,
    "help": help_pages,
    "layers": layers,
    "modules": modules,
    "action-spaces": action_spaces,
    "layouts": layouts,
    "plans": plans,
    "mistakes": mistakes,
    "study": study,
}


def renewed(text: str) -> str:
    """A page with every generated section as the code has it now."""

    def section(match: re.Match[str]) -> str:
        name, *arguments = match["words"].split()
        return f"{match[1]}\n{GENERATORS[name](*arguments)}\n{match[3]}"

    return SECTION.sub(section, text)


def main() -> int:
    """Renew, or with `--check` compare, every page."""
    sys.path.insert(0, str(ROOT))
    check = "--check" in sys.argv[1:]
    stale = []
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            stale.append(path.name)
            if not check:
                path.write_text(after, encoding="utf-8")
    sys.stdout.write(f"{'out of date' if check else 'wrote'}: {', '.join(stale) or 'nothing'}\n")
    return int(check and bool(stale))

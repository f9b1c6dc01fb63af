"""What a study found, as tables, from the raw results that lie beside the pages."""

import json

from docs_from_code.common import DOCS


def study(name: str) -> str:
    """The tables of `docs/NAME`, which `xvla study` wrote."""
    from xvla_platform.study.results import tables
    from xvla_platform.study.spec import StudySpec

    found = json.loads((DOCS / name).read_text(encoding="utf-8"))
    return tables(StudySpec.model_validate(found["study"]), found).rstrip("\n")

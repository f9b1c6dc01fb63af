"""What a base's rows were trained with: its own `domains.json`, or the shipped table of the public bases.

In: a base's folder and id. Out: domain id to `DomainConvention`. A base that is pretrained here keeps `domains.json`
beside its weights: domain id to a name, or to a mapping with the whole convention and the range of the data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import read_json
from xvla_platform.specs.base import load_model, validate_model
from xvla_platform.specs.domain import DomainConvention, PublishedDomains

if TYPE_CHECKING:
    from xvla_platform.platform.bases import ResolvedBase

DOMAINS = "domains.json"
PUBLISHED = Path(__file__).with_name("pretrained_domains.yaml")


@dataclass(frozen=True, kw_only=True)
class DomainTable:
    """The rows of one base that are in use.

    Attributes:
        domains: By domain id, in order.
        source: The file or publication they come from.
        assumed: The base names no rows, and is not one of the public ones either: their table is only likely.
    """

    domains: Mapping[int, DomainConvention]
    source: str
    assumed: bool = False


def published_domains() -> PublishedDomains:
    """The shipped table of the public bases."""
    return load_model(PublishedDomains, PUBLISHED)


def domain_table(base: "ResolvedBase") -> DomainTable:
    """What the rows of `base` were trained with."""
    return read_domains(base.folder, base.id, base.num_domains)


def read_domains(folder: Path, base: str, num_domains: int) -> DomainTable:
    """The rows of the base with id `base` in `folder`: its `domains.json`, else those of the public bases."""
    path = folder / DOMAINS
    if path.is_file():
        domains = _parse(read_json(path), path)
        source, assumed = DOMAINS, False
    else:
        table = published_domains()
        if num_domains != table.num_domains:
            raise XvlaError(
                f"which of the {num_domains} domain ids this base used is not known",
                file=path,
                hint='add domains.json beside config.json: {"0": "name of domain 0", ...}',
            )
        domains = {domain.domain_id: domain for domain in table.domains}
        source = table.source
        assumed = not any(fnmatchcase(base, pattern) for pattern in table.bases)
    outside = [key for key in domains if not 0 <= key < num_domains]
    if outside:
        raise XvlaError("names a domain id that its tables do not have", file=path, found=outside[0])
    return DomainTable(domains=dict(sorted(domains.items())), source=source, assumed=assumed)


def domains_json(domains: Mapping[int, DomainConvention]) -> dict[str, Any]:
    """What `domains.json` holds for these rows: their names where nothing else is known."""
    out: dict[str, Any] = {}
    for key, domain in sorted(domains.items()):
        facts = domain.model_dump(mode="json", exclude={"domain_id"}, exclude_defaults=True)
        out[str(key)] = domain.name if set(facts) == {"name"} else facts
    return out


def _parse(found: Any, path: Path) -> dict[int, DomainConvention]:
    try:
        items = {int(key): value for key, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise XvlaError("expected domain id to name", file=path, found=found) from None
    out = {}
    for key, value in items.items():
        facts = {"name": value} if isinstance(value, str) else value
        if isinstance(facts, dict):
            facts = {**facts, "domain_id": max(key, 0)}
        out[key] = validate_model(DomainConvention, facts, f"{path}: {key}")
    return out

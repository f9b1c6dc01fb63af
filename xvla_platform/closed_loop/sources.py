"""What an evaluation runs, as values that a worker process can be given: which policy, and which environment.

A policy is an adaptation (`my_arm`, `my_arm/v2`), or the base as it is on a registered robot (`my_arm/base`), with the
slot's rows copied from a pretrained robot's, their mean, or random ones. An adaptation can also be asked to drive
another registered robot from that robot's own rows: what it forgot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xvla_platform.adapt.prepare import open_base, open_demonstrations, statistics_of
from xvla_platform.closed_loop.making import could_not_be_made
from xvla_platform.data.binding import Binding
from xvla_platform.errors import XvlaError
from xvla_platform.modelling.checkpoint import load_model
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.sampling import find_sampler
from xvla_platform.modelling.slot import mean_rows, random_rows, write_rows
from xvla_platform.platform.artifact import load_record, verify
from xvla_platform.platform.bases import ResolvedBase, resolve_base
from xvla_platform.platform.embodiments import base_space
from xvla_platform.platform.hookspecs import Environment, EnvironmentRequest, load_target
from xvla_platform.platform.plugins import build_manager, contributions
from xvla_platform.platform.records import load_embodiment, plugin_sources
from xvla_platform.platform.registry import find
from xvla_platform.platform.workspace import Workspace
from xvla_platform.policy.policy import Policy, load_policy
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.specs.records import EmbodimentRecord, PromptSlot

BASE = "base"  # the version that means: nothing learned
STARTS = ("nearest", "mean", "random")


@dataclass(frozen=True, kw_only=True)
class PolicySource:
    """A policy to be loaded here or in another process.

    Attributes:
        label: How results call it.
        adaptation: Folder of the adaptation; None for the base as it is.
        robot: The registered robot to drive where it is not the adaptation's own.
        sampler: How chunks are computed, by name.
        rows: Domain id whose rows are used as they are, or `mean` or `random`; None for the adaptation's own.
    """

    workspace: Path
    label: str
    adaptation: Path | None
    base: str | None
    robot: str | None
    rows: int | str | None
    device: str = "cpu"
    sampler: str = "exact"

    def __call__(self) -> Policy:
        place, sampler = Workspace(self.workspace), find_sampler(self.sampler)
        record, base = self.record(), self.resolved_base()
        if self.adaptation is not None:
            policy = load_policy(self.adaptation, base=base, device=self.device, sampler=sampler)
            if self.rows is None:
                return policy
            model, processor = policy.model, policy.processor
        else:
            model = load_model(base.folder, device=self.device, num_domains=record.slot.num_domains).eval()
            processor = Processor.from_folder(base.folder, model.config)
        processor = processor.for_robot(record.spec)
        if isinstance(self.rows, int):
            slot = PromptSlot(domain_id=self.rows, num_domains=record.slot.num_domains)
            record = record.model_copy(update={"slot": slot})
        elif self.rows == "mean":
            write_rows(model, record.slot.domain_id, mean_rows(model, sorted(base.used_domains)))
        else:
            write_rows(model, record.slot.domain_id, random_rows(model, seed=0))
        statistics = statistics_of(place, record.spec.name)
        binding = Binding(
            record.spec,
            base_space(base),
            record.rotation_layout,
            statistics,
            folder=place.embodiments / record.spec.name,  # where the record's own copies of its files lie
        )
        return Policy(model, processor, binding, record, sampler)

    @property
    def version(self) -> str:
        """What it is called among those that drive its robot: `base`, `v2`, or `my_arm-v2` of another robot."""
        if self.adaptation is None:
            return "base"
        return self.adaptation.name if self.robot is None else f"{self.adaptation.parent.name}-{self.adaptation.name}"

    def record(self) -> EmbodimentRecord:
        """The robot that is driven."""
        if self.robot is not None:
            return load_embodiment(Workspace(self.workspace), self.robot)
        assert self.adaptation is not None
        return load_record(self.adaptation)

    def resolved_base(self) -> ResolvedBase:
        """The base, checked to be the one that the robot was registered for."""
        place, record = Workspace(self.workspace), self.record()
        if self.base is None:
            return open_base(record, place)
        base = resolve_base(self.base, None, place.root)
        if self.adaptation is None and base.fingerprint != record.base.fingerprint:
            raise XvlaError(
                "the robot was registered for another base",
                field="base",
                found=f"{base.id} with {base.fingerprint[:12]}",
                allowed=f"{record.base.id} with {record.base.fingerprint[:12]}",
                hint=f"run `xvla add-embodiment {record.plugin} --base {self.base}` for this one",
            )
        return base

    def identity(self) -> dict[str, Any]:
        """What decides the policy's answers, for telling one evaluation from another."""
        from xvla_platform.platform.files import sha256_file

        manifest = None if self.adaptation is None else sha256_file(self.adaptation / "manifest.json")
        return {
            "policy": self.label,
            "manifest": manifest,
            "robot": self.record().spec.name,
            "rows": self.rows,
            "sampler": self.sampler,
            "base": self.resolved_base().fingerprint,
        }


def policy_source(
    place: Workspace,
    target: str,
    *,
    base: str | None = None,
    robot: str | None = None,
    init: str | None = None,
    data: Path | None = None,
    device: str = "cpu",
    sampler: str = "exact",
) -> PolicySource:
    """Which policy `target` means.

    Args:
        target: `my_arm`, `my_arm/v2`, or `my_arm/base` for the base with nothing learned.
        robot: Another registered robot for an adaptation to drive.
        init: For the base or another robot, whose rows: `nearest` (by measured loss on the robot's demonstrations),
            `mean`, `random`, or a pretrained robot's name or domain id. By default a pretrained robot's own, else the
            nearest.
        data: The demonstrations, where they are not where the plugin says.
    """
    name, _, version = target.partition("/")
    how: dict[str, Any] = {"workspace": place.root, "base": base, "device": device, "sampler": sampler}
    if version == BASE:
        if robot is not None:
            raise XvlaError("the base drives the robot it is asked for", field="robot", found=robot)
        source = PolicySource(label=target, adaptation=None, robot=name, rows="mean", **how)
    else:
        chosen = find(place, target)
        verify(chosen.folder)
        if robot is None:
            if init is not None:
                raise XvlaError(
                    "an adaptation has a slot of its own",
                    field="init",
                    found=init,
                    hint=f"evaluate the base as it is with `{name}/{BASE}`",
                )
            return PolicySource(label=chosen.label, adaptation=chosen.folder, robot=None, rows=None, **how)
        source = PolicySource(
            label=f"{chosen.label} on {robot}", adaptation=chosen.folder, robot=robot, rows="mean", **how
        )
    resolved, record = source.resolved_base(), source.record()
    rows = _rows(source, resolved, record, init, data)
    if source.adaptation is not None and not isinstance(rows, int):
        raise XvlaError(
            "another robot is driven from rows of its own",
            field="init",
            found=init or rows,
            allowed=sorted(resolved.used_domains.values()),
        )
    whose = resolved.used_domains.get(rows, str(rows)) if isinstance(rows, int) else rows
    return replace(source, rows=rows, label=f"{source.label} (rows: {whose})")


def _rows(
    source: PolicySource, base: ResolvedBase, record: EmbodimentRecord, init: str | None, data: Path | None
) -> int | str:
    names = {name: domain for domain, name in base.used_domains.items()}
    if init is None:
        init = record.spec.name if record.spec.name in names else "nearest"
    if init in names:
        return names[init]
    if init.isdecimal() and int(init) in base.used_domains:
        return int(init)
    if init not in STARTS:
        raise XvlaError("no such rows", field="init", found=init, allowed=[*STARTS, *names])
    if init != "random" and not names:
        raise XvlaError(f"no slot of {base.id} was used in its pretraining", field="init", found=init, allowed="random")
    return _nearest(source, base, data) if init == "nearest" else init


def _nearest(source: PolicySource, base: ResolvedBase, data: Path | None) -> int:
    """The pretrained robot whose rows predict this robot's training demonstrations best."""
    from xvla_platform.adapt.robot_data import bare_split, split_samples
    from xvla_platform.adapt.slot_probe import probe_of, slot_loss

    policy, place = source(), Workspace(source.workspace)
    record, model, processor = policy.record, policy.model, policy.processor
    reader = open_demonstrations(place, record, data)
    episodes, samples = split_samples(record, reader, policy.binding, model.config.num_actions)["train"]
    split = bare_split("train", episodes, samples, record=record, processor=processor, config=model.config)
    probe = probe_of(split, model, processor)
    return min(base.used_domains, key=lambda domain: (slot_loss(model, domain, probe, seed=0), domain))


@dataclass(frozen=True, kw_only=True)
class EnvironmentSource:
    """An environment to be made here or in another process."""

    name: str
    spec: EmbodimentSpec
    plugin_folder: Path
    options: Mapping[str, str]

    def identity(self) -> dict[str, Any]:
        """What decides the environment's answers, for telling one evaluation from another."""
        return {
            "environment": self.name,
            "environment_options": dict(self.options),
            "plugin_sources": plugin_sources(self.plugin_folder, self.spec.dataset.path),
        }

    def __call__(self) -> Any:
        """The `gymnasium.Env`."""
        environments = contributions(_manager(self.plugin_folder), "register_environments")
        request = EnvironmentRequest(spec=self.spec, plugin_folder=self.plugin_folder, options=self.options)
        with could_not_be_made(self.name, self.plugin_folder):
            return load_target(environments[self.name].make)(request)


def environment_source(
    spec: EmbodimentSpec, folder: Path, *, name: str | None = None, options: Mapping[str, str] | None = None
) -> EnvironmentSource:
    """The environment of that name, or the only one that has this robot."""
    found: dict[str, Environment] = contributions(_manager(folder), "register_environments")
    fitting = []
    for each, env in found.items():
        with could_not_be_made(each, folder):
            if env.fits is None or env.fits(spec, folder):
                fitting.append(each)
    if name is None:
        if len(fitting) != 1:
            raise XvlaError(
                f"{'several environments have' if fitting else 'no environment has'} this robot",
                file=folder,
                field="env",
                found=", ".join(fitting) or f"none of {', '.join(found) or 'none'}",
                hint="name one with --env" if fitting else "add one to the plugin's plugin.py: docs/evaluation.md",
            )
        name = fitting[0]
    elif name not in found:
        raise XvlaError("unknown environment", field="env", found=name, allowed=found)
    elif name not in fitting:
        raise XvlaError("this environment does not have the robot", file=folder, field="env", found=name)
    return EnvironmentSource(name=name, spec=spec, plugin_folder=folder, options=dict(options or {}))


def _manager(folder: Path) -> Any:
    return build_manager(folder if folder.is_dir() else None)

"""LeRobot's side of `xvla bench`, run by a Python in which `lerobot[xvla,peft]` is installed: `peer.py SPEC RESULT`.

Needs nothing of ours. `public` and `public_lora` are the steps of the official X-VLA scripts over LeRobot's classes;
`full` and `lora_everywhere` are LeRobot's own, with its optimizer; `inference` and `pipeline` its policy and dataset.
"""

import json
import resource
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

DOMAIN = 3
TABLES = ("soft_prompt_hub", "action_encoder", "action_decoder")
ENOUGH = 3


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(spec["threads"])
    torch.manual_seed(0)
    kinds = {"inference": inference, "pipeline": pipeline, "end_to_end_public": end_to_end}
    result = kinds.get(spec["kind"], steps)(spec)
    result["process_peak_bytes"] = max(result.pop("load_peak_bytes", 0), peak_bytes())
    result["versions"] = {name: version(name) for name in ("lerobot", "torch", "transformers")}
    Path(sys.argv[2]).write_text(json.dumps(result))


def steps(spec: dict[str, Any]) -> dict[str, Any]:
    step, trained = make_step(spec)
    return {"trained": trained, **measured(spec, step)}


def end_to_end(spec: dict[str, Any]) -> dict[str, Any]:
    step, trained = make_step({**spec, "kind": "public"})
    return {"trained": trained, **measured(spec, step)}


def make_step(spec: dict[str, Any]) -> tuple[Any, int]:
    """One optimizer step over fixed random inputs, in parts where the batch would not fit, and what it trains."""
    kind = spec["kind"]
    policy = load(spec)
    model = policy.model
    clip, own = 1.0, kind in ("full", "lora_everywhere")
    if kind.endswith(("lora", "lora_everywhere")):
        model = with_lora(model)
    if own:
        optimizer = policy.config.get_optimizer_preset().build(
            {name: p for name, p in model.named_parameters() if p.requires_grad}
        )
        clip = policy.config.optimizer_grad_clip_norm
    else:
        optimizer = published_optimizer(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    parts = [inputs(spec, policy, part) for part in split(spec["batch"], spec["micro"])]

    def step(_: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in parts:
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=spec["device"] == "cuda"):
                loss = sum(model(**part).values())
            (loss * (len(part["action"]) / spec["batch"])).backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()

    return step, sum(p.numel() for p in parameters)


def published_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over everything that has a gradient, as in the first thousand steps: only the tables' rates are not 0."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[any(table in name for table in TABLES)].append(parameter)
    rates = [{"params": groups[True], "lr": 1e-4}, {"params": groups[False], "lr": 0.0}]
    return torch.optim.AdamW([group for group in rates if group["params"]], betas=(0.9, 0.95), weight_decay=0.0)


def with_lora(model: nn.Module) -> nn.Module:
    """Rank 8 on every linear layer, and the whole tables: the official script's configuration."""
    from peft import LoraConfig, get_peft_model

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    tables = [f"transformer.{table}" for table in TABLES]
    config = LoraConfig(r=8, lora_alpha=16, target_modules=linear, modules_to_save=tables, bias="none")
    wrapped = get_peft_model(model, config).base_model.model
    assert isinstance(wrapped, nn.Module)
    return wrapped


def inference(spec: dict[str, Any]) -> dict[str, Any]:
    policy = load(spec)
    policy.eval()
    given = inputs(spec, policy, 1)
    given.pop("action")
    chunks: list[torch.Tensor] = []

    def work(_: int) -> None:
        torch.manual_seed(1)
        chunks[:] = [policy.model.generate_actions(**given, steps=policy.config.num_denoising_steps)]

    return {**measured(spec, work), "chunk": chunks[0].float().cpu().tolist()}


def pipeline(spec: dict[str, Any]) -> dict[str, Any]:
    """Batches of LeRobot's dataset through its loader and X-VLA's processor steps, resized as its policy does."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    from lerobot.policies.common.vla_utils import pad_vector, resize_with_pad
    from lerobot.policies.xvla.processor_xvla import XVLAImageNetNormalizeProcessorStep, XVLAImageToFloatProcessorStep
    from lerobot.processor import PolicyProcessorPipeline, TokenizerProcessorStep
    from transformers import AutoTokenizer

    folder = Path(spec["dataset"])
    fps = json.loads((folder / "meta/info.json").read_text())["fps"]
    config = json.loads((Path(spec["folder"]) / "config.json").read_text())
    times = [(i + 1) / fps for i in range(config["num_actions"])]
    dataset = LeRobotDataset("bench/set", root=folder, delta_timestamps={"action": times})
    tokenizer = TokenizerProcessorStep(
        tokenizer=AutoTokenizer.from_pretrained(spec["folder"]),
        max_length=config["language_max_length"],
        padding="max_length",
        padding_side="right",
    )
    process = PolicyProcessorPipeline(
        steps=[tokenizer, XVLAImageToFloatProcessorStep(), XVLAImageNetNormalizeProcessorStep()]
    )
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=spec["batch"], shuffle=True, num_workers=0, generator=generator, drop_last=True
    )
    stream = iter(loader)
    cameras = list(dataset.meta.camera_keys)
    size = image_size(spec)

    def work(_: int) -> None:
        batch = process(next(stream))
        torch.stack([resize_with_pad(batch[key], *size, pad_value=0.0) for key in cameras], dim=1)
        pad_vector(batch["observation.state"], 20, truncate=True)
        pad_vector(batch["action"], 20, truncate=True)

    return {**measured(spec, work), "frames": spec["batch"] * len(cameras)}


def load(spec: dict[str, Any]) -> Any:
    """LeRobot's policy over the same weights."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.xvla.configuration_xvla import XVLAConfig
    from lerobot.policies.xvla.modeling_xvla import XVLAPolicy

    data = json.loads((Path(spec["folder"]) / "config.json").read_text())
    same = ["hidden_size", "depth", "num_heads", "mlp_ratio", "num_domains", "len_soft_prompts", "dim_time"]
    same += ["max_len_seq", "use_hetero_proj", "action_mode", "florence_config"]
    images = {
        f"observation.images.view{i}": PolicyFeature(type=FeatureType.VISUAL, shape=(3, *image_size(spec)))
        for i in range(spec["views"])
    }
    config = XVLAConfig(
        **{key: data[key] for key in same},
        chunk_size=data["num_actions"],
        n_action_steps=data["num_actions"],
        tokenizer_max_length=data["language_max_length"],
        max_state_dim=20,
        num_image_views=spec["views"],
        device=spec["device"],
        input_features={**images, "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(20,))},
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(20,))},
    )
    return XVLAPolicy.from_pretrained(spec["folder"], config=config)


def inputs(spec: dict[str, Any], policy: Any, batch: int) -> dict[str, torch.Tensor]:
    """Model-ready inputs, the same numbers that our side makes for itself."""
    draw = np.random.default_rng(0)
    config = policy.config
    pixels = draw.standard_normal((batch, spec["views"], 3, *image_size(spec)), dtype=np.float32)
    proprio = draw.standard_normal((batch, 20), dtype=np.float32)
    action = draw.random((batch, config.chunk_size, 20), dtype=np.float32)
    made = {
        "input_ids": torch.ones(batch, config.tokenizer_max_length, dtype=torch.long),
        "image_input": torch.from_numpy(pixels),
        "image_mask": torch.ones(batch, spec["views"], dtype=torch.bool),
        "domain_id": torch.full((batch,), DOMAIN),
        "proprio": torch.from_numpy(proprio),
        "action": torch.from_numpy(action),
    }
    return {key: value.to(spec["device"]) for key, value in made.items()}


def image_size(spec: dict[str, Any]) -> tuple[int, int]:
    size = json.loads((Path(spec["folder"]) / "preprocessor_config.json").read_text())["size"]
    return int(size["height"]), int(size["width"])


def split(batch: int, largest: int) -> list[int]:
    return [min(largest, batch - start) for start in range(0, batch, largest)]


def measured(spec: dict[str, Any], work: Any) -> dict[str, Any]:
    """What every round spent, measured as on our side."""
    loaded = peak_bytes()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # count memory from here
    cuda = spec["device"] == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for i in range(spec["warmup"]):
        work(i)
    wait()
    cpu, wall = [], []
    began = time.perf_counter()
    for i in range(spec["rounds"]):
        before, start = cpu_seconds(), time.perf_counter()
        work(spec["warmup"] + i)
        wait()
        cpu.append(cpu_seconds() - before)
        wall.append(time.perf_counter() - start)
        if time.perf_counter() - began > spec["limit_s"] and len(cpu) >= ENOUGH:
            break
    found = {"cpu_s": cpu, "wall_s": wall, "peak_bytes": peak_bytes(), "load_peak_bytes": loaded}
    if cuda:
        found |= {"cuda_peak_bytes": torch.cuda.max_memory_allocated(), "gpu": torch.cuda.get_device_name()}
    return found


def cpu_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return spent.ru_utime + spent.ru_stime


def peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()

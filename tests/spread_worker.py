"""What a launched process does in tests/test_spread.py: one stage on the small model, and what it measured."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from adapt_helpers import write_small_base
from loop_helpers import Recorder, make_job, make_stage
from safetensors.torch import save_file

from xvla_platform.adapt.launch import make_accelerator
from xvla_platform.adapt.loop import run_stage
from xvla_platform.adapt.snapshot import load_newest
from xvla_platform.adapt.spread import kind_of
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.processor import Processor
from xvla_platform.specs.plan import Stage


def stage_of(case: dict[str, Any]) -> Stage:
    """The stage that a case describes, without what each process draws for itself."""
    return make_stage(case["stage"], **{"dropout": 0.0, "color_jitter": (0.0, 0.0, 0.0), **case.get("changes", {})})


def run(case: dict[str, Any], processor: Processor) -> None:
    """Run or resume a case; the first process writes `<out>.json` and `<out>.safetensors`."""
    accelerator = make_accelerator()
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":  # what accelerate makes of this launch on GPUs
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    stage, folder, recorder = stage_of(case), Path(case["folder"]), Recorder(case.get("stop"))
    job = make_job(processor, folder, stage, recorder, accelerator=accelerator)
    found = load_newest(folder / "checkpoints")
    accelerator.wait_for_everyone()
    try:
        run_stage(job, found)
    except KeyboardInterrupt:
        return
    if accelerator.is_main_process:
        report = {"kind": kind_of(accelerator, stage), "lines": recorder.lines, "start": recorder.started[0][0]}
        Path(case["out"] + ".json").write_text(json.dumps(report))
        save_file({n: t.contiguous() for n, t in job.model.named_parameters()}, case["out"] + ".safetensors")


def main(file: str) -> None:
    """Every case of a JSON file, in order."""
    with tempfile.TemporaryDirectory() as place:
        base = write_small_base(Path(place) / "base")
        processor = Processor.from_folder(base, XVLAConfig.from_folder(base))
    for case in json.loads(Path(file).read_text()):
        run(case, processor)


if __name__ == "__main__":
    main(sys.argv[1])

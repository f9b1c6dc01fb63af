"""The examples for clusters are real: they parse, and the commands in them are commands of this version."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from torch.distributed.run import get_args_parser

EXAMPLES = REPOSITORY / "docs" / "examples"


def assert_command(words: list[str]) -> None:
    """`torchrun … -m xvla_platform adapt …`: torchrun takes its part, our command line the rest."""
    from xvla_platform.cli.adapt import adapt

    assert words[0] == "torchrun"
    launcher = get_args_parser().parse_args(words[1:])
    assert launcher.module
    assert launcher.training_script == "xvla_platform"
    assert int(launcher.nnodes) > 1
    verb, *options = launcher.training_script_args
    assert verb == "adapt"
    context = adapt.make_context("adapt", options)
    assert "my_arm" in str(context.params)


def test_the_slurm_script_starts_what_it_says(tmp_path: Path) -> None:
    """Run by bash, with SLURM's programs replaced by ones that print: the command is whole, and survives a requeue."""
    script = EXAMPLES / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    for name, body in {"scontrol": "echo node-a; echo node-b", "srun": 'printf "%s\\n" "$@"'}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    env = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "7",
    }
    done = subprocess.run([bash, script], env=env, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert_command(words[words.index("torchrun") :])
    assert "node-a:29500" in words
    assert "--resume-if-begun" in words


def test_the_kubernetes_job_starts_what_it_says() -> None:
    """As many pods as nodes, as many processes as GPUs, meeting at the first pod's name in the service."""
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    pods = job["spec"]["template"]["spec"]
    container = pods["containers"][0]
    assert_command(container["command"])
    launcher = get_args_parser().parse_args(container["command"][1:])
    assert int(launcher.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(launcher.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    name = job["metadata"]["name"]
    assert launcher.rdzv_endpoint.split(":")[0] == f"{name}-0.{pods['subdomain']}"
    assert service["metadata"]["name"] == pods["subdomain"]
    assert service["spec"]["selector"] == {"job-name": name}


def test_the_fsdp_configuration_is_one_that_accelerate_reads() -> None:
    """Unknown keys would be an error there; the version is the one we run."""
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(EXAMPLES / "fsdp.yaml"))
    assert config.distributed_type == "FSDP"
    assert config.fsdp_config["fsdp_version"] == 2


@pytest.mark.parametrize("page", ["clusters.md"])
def test_the_commands_of_the_page_are_commands(page: str) -> None:
    """What stands in its first block, option by option."""
    from xvla_platform.cli.adapt import adapt

    lines = re.findall(r"^(?:torchrun|accelerate launch) .*$", (REPOSITORY / "docs" / page).read_text(), re.M)
    assert len(lines) == 2
    for line in lines:
        words = shlex.split(line)
        assert adapt.make_context("adapt", words[words.index("adapt") + 1 :])
        files = [word for word in words if word.endswith(".yaml")]
        assert all((REPOSITORY / file).is_file() for file in files)

"""A launch of several processes that became one is refused, whatever launched it; nodes meet and share the work."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from adapt_cli_helpers import ADAPT, write_plan
from adapt_helpers import command, write_place
from conftest import REPOSITORY, one_line_error
from test_adapt_ranks import close, weights

LONELY = "the launcher started several processes and they do not see each other"
LAUNCHERS: dict[str, tuple[dict[str, str], str]] = {
    "srun": ({"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, "4 processes by srun"),
    "sbatch": ({"SLURM_NTASKS": "4"}, "4 processes by SLURM"),
    "openmpi": ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, "2 processes by mpirun"),
    "mpich": ({"PMI_SIZE": "3"}, "3 processes by mpirun"),
    "kubernetes": ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "x", "LOCAL_RANK": "-1"}, "2 launched, 1 joined"),
}


def as_launched(root: Path, env: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("launcher", list(LAUNCHERS))
def test_processes_that_know_nothing_of_each_other_are_refused(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would do the whole run; the line says who started how many, and how to start them instead."""
    from xvla_platform.adapt.launch import make_accelerator
    from xvla_platform.errors import XvlaError

    env, found = LAUNCHERS[launcher]
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if launcher == "kubernetes":  # as accelerate finds nothing to join, it stays alone
        monkeypatch.setattr(
            "xvla_platform.adapt.launch.Accelerator", lambda **_: type("Alone", (), {"num_processes": 1})
        )
    with pytest.raises(XvlaError, match=LONELY) as refused:
        make_accelerator(together=True)
    assert found in str(refused.value)
    assert "torchrun --nproc-per-node" in str(refused.value)


def test_what_shares_no_work_runs_inside_a_job_of_several_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """`xvla eval` at the end of a batch script is one process and means to be."""
    from xvla_platform.adapt.launch import make_accelerator

    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert make_accelerator().num_processes == 1


def test_accelerate_that_starts_one_of_several_is_refused(tmp_path: Path) -> None:
    """On CPUs `accelerate launch --num_processes 2` starts one process and says nothing; we do."""
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "--quiet")
    result = as_launched(tmp_path, {}, *launcher, "-m", "xvla_platform", *ADAPT)
    assert result.returncode != 0
    assert result.stderr.count(LONELY) == 1
    assert "--num_processes" in result.stderr


def test_a_launch_whose_other_process_never_comes_ends_with_one_line(tmp_path: Path) -> None:
    """After the time that is set; a wrong time is one line, too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = ("-m", "xvla_platform", *ADAPT)
    result = as_launched(tmp_path, {**env, "XVLA_TIMEOUT_MINUTES": "0.05"}, *words)
    assert result.returncode == 2
    assert "error: a process of this launch waited in vain for the others" in result.stderr
    assert "Traceback" not in result.stderr
    result = as_launched(tmp_path, {**env, "XVLA_TIMEOUT_MINUTES": "soon"}, *words)
    assert "found soon; allowed: minutes above 0" in one_line_error(result)


RANK = """
import os, sys
import xvla_platform
print(os.getpid(), flush=True)
sys.stdin.readline()
from xvla_platform.adapt.launch import make_accelerator
make_accelerator(together=True)
"""
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


def test_a_process_whose_launcher_dies_while_it_starts_ends() -> None:
    """Killed while the process still imports: it would wait where processes meet, for an hour."""
    meeting = {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, RANK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **meeting},
    )
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    rank = psutil.Process(int(launcher.stdout.readline()))
    launcher.kill()
    launcher.wait()
    launcher.stdin.write("\n")
    launcher.stdin.close()
    launcher.stdout.close()
    try:
        rank.wait(timeout=60)
    finally:
        if rank.is_running():
            rank.kill()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_the_first_fsdp_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never run whole, or melted together, where shards were asked for."""
    env = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}
    result = as_launched(tmp_path, env, "-m", "xvla_platform", *ADAPT)
    assert "fsdp_version: FSDP's first version" in one_line_error(result)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_two_nodes_end_where_one_process_does(tmp_path: Path) -> None:
    """The same command on each of two nodes that meet at an address: one version, the weights of one process."""
    root = write_place(tmp_path / "place")
    write_plan(root)
    (root / "plan.yaml").write_text((root / "plan.yaml").read_text().replace("dropout: 0.1", "dropout: 0.0"))
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    assert command(*ADAPT, "--plan", "plan.yaml", cwd=root) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "tests"]
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", *meeting]
    nodes = [
        subprocess.Popen(
            [sys.executable, *launcher, "-m", "xvla_platform", *ADAPT, "--plan", "plan.yaml", "--json"],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [node.communicate(timeout=260) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], answers
    assert sorted(bool(out.strip()) for out, _ in answers) == [False, True]
    assert close(weights(root, 1), weights(root, 2), 1e-5)
    assert not (root / "registry" / "my_arm" / "v3").exists()

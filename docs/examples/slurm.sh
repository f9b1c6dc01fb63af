#!/bin/bash
#SBATCH --job-name=xvla-adapt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
# One task a node: torchrun starts that node's processes, one a GPU, and all nodes meet at the first one.
# The workspace lies on a file system that all nodes see. Submit with: sbatch slurm.sh my_arm
set -euo pipefail

ROBOT=${1:-my_arm}
GPUS=${SLURM_GPUS_ON_NODE:-4}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "$GPUS" \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$HEAD:29500" \
    -m xvla_platform adapt --embodiment "$ROBOT" --resume-if-begun

#!/bin/bash
# Two machines of four GPUs: `sbatch configs/slurm.sh` from the repository's root, once the environment exists there.
#SBATCH --job-name=spectral-lightning
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.out
# 90 seconds before the end every task gets SIGUSR1; Lightning then saves a checkpoint and requeues the job.
#SBATCH --signal=SIGUSR1@90
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

# srun starts one process per GPU; Lightning reads its rank from SLURM's variables.
srun .venv/bin/spectral-lightning fit --config configs/slurm.yaml "$@"

#!/bin/bash
# A sweep as a SLURM array: every task runs cells until none is left, one GPU each. Submit it from the repository's root.
#   sbatch configs/cluster/slurm.sh wandb ENTITY/PROJECT/SWEEP      cells from W&B's server (`wandb sweep FILE` names it)
#   sbatch configs/cluster/slurm.sh local --runs runs FILE...       no server: the tasks share the cells through runs/.sweep,
#                                                                    which needs a file system with flock (NFS 4, Lustre -o flock)
#   sbatch configs/cluster/slurm.sh local --agent ENTITY/PROJECT FILE...   the cells that `sweep FILE --wandb` hands out
#   bash   configs/cluster/slurm.sh local --dry-run FILE...         what it would cost; nothing is run
# The number of tasks is the array's: `sbatch --array=0-31 configs/cluster/slurm.sh ...` has 32 in place of 8.
# A task that is preempted or runs out of time gets SIGTERM and saves its run; the cell goes on from its run directory when
# SLURM requeues the preempted task, or when the same line is submitted again.
#SBATCH --job-name=batch-limit
#SBATCH --array=0-7
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
source .venv/bin/activate
kind=${1:-}
[ $# -eq 0 ] || shift
if [ -n "${SLURM_ARRAY_TASK_COUNT:-}" ]; then
  start=srun
  echo "task $((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1)) of $SLURM_ARRAY_TASK_COUNT of job $SLURM_ARRAY_JOB_ID" >&2
else
  start=
fi
case $kind in
wandb) exec $start wandb agent --forward-signals "$@" ;;
local) exec $start python -m tasks sweep "$@" ;;
*) echo "error: give wandb or local first, not '$kind'" >&2; exit 2 ;;
esac

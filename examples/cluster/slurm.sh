#!/bin/bash
# Four nodes of eight GPUs: sbatch examples/cluster/slurm.sh env=sokoban model=Qwen/Qwen2.5-7B-Instruct
#SBATCH --job-name=ragen-lite
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300   # five minutes to save; the next job goes on with run.resume=auto
set -euo pipefail

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
export RAY_ADDRESS="$head:6379"

srun --overlap --nodes=1 --ntasks=1 -w "$head" ray start --head --port=6379 --block &
until srun --overlap --nodes=1 --ntasks=1 -w "$head" ray status --address "$RAY_ADDRESS" > /dev/null 2>&1; do sleep 2; done
for node in "${nodes[@]:1}"; do
  srun --overlap --nodes=1 --ntasks=1 -w "$node" ray start --address "$RAY_ADDRESS" --block &
done
# The others join within some seconds; the run waits a minute for room, so they are waited for here.
until [ "$(ray status --address "$RAY_ADDRESS" | grep -c '^ 1 node_')" -ge "${#nodes[@]}" ]; do sleep 2; done

python -m ragen_lite.train engine=vllm engine.workers=16 engine.shard=64 train.workers=16 train.staleness=1 \
  run.dir="$SLURM_SUBMIT_DIR/runs" run.resume=auto "$@" &
run=$!
trap 'kill -TERM $run' TERM
wait $run || wait $run

#!/usr/bin/env bash
# tiny-forced as it is bundled, from what recipes/tiny/force.toml makes:
#   bash recipes/tiny/polish.sh runs/tiny-forced/average
# tiny-base answers 40,000 problems; the model learns from those answers what the rounds cost it,
# with tiny-base's own distributions on the clean stream; twice more from there; and the mean of the
# two and a little of tiny-base. On two cores: half an hour of collecting, 85 minutes for the start,
# 95 for both members side by side. Collecting and training continue where they were stopped.
set -euo pipefail
start=$1
out=runs/tiny-polish
jacobi=${JACOBI:-jacobi}

"$jacobi" collect --model tiny-base --prompts bundled:40000 --out $out/traj --record answers \
    --block-size 16 --max-new-tokens 192 --batch-size 128 --shard-prompts 1024 --dtype bfloat16 \
    --seed 2 --threads 2
[ -e $out/packed/manifest.json ] || \
    "$jacobi" pack --trajectories $out/traj --out $out/packed --finished-only --workers 2

train() {
    "$jacobi" train --packed $out/packed --states online --mask clean-context --batch-size 16 --bf16 \
        --eval-prompts bundled:200 --eval-block-size 16 --frozen-model tiny-base \
        --ar-teacher frozen --learning-rate 3e-4 --consistency-reach 8 --drafts-per-block 3 \
        --online-iterations 2 --threads 1 "$@"
}
train --model "$start" --out $out/start --max-steps 1200 --ar-weight 10 --eval-steps 300 --seed 1
for member in 1 2; do
    train --model $out/start --out $out/member-$member --max-steps 1500 --ar-weight 30 \
        --eval-steps 500 --max-accuracy-drop 0.05 --seed $((member + 1)) &
    pids[$member]=$!
done
wait "${pids[1]}"
wait "${pids[2]}"
"$jacobi" average --models "tiny-base,$out/member-1,$out/member-2" --weights 0.05,0.475,0.475 \
    --out $out/mean

#!/usr/bin/env bash
# What only a GPU can show, in under ten minutes: benchmarks/gpu/run_all.sh --out DIR [--smoke]
# --smoke runs everything small on a CPU, to see that it works.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=benchmarks/results smoke=()
python=${PYTHON:-python}
while [ $# -gt 0 ]; do
  case "$1" in
    --out) out=$2; shift 2 ;;
    --smoke) smoke=(--smoke); shift ;;
    *) echo "usage: $0 [--out DIR] [--smoke]" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
export PYTHONPATH="$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
status=0
# Seconds after which a script begins no further measurement.
for part in exactness:60 step_time:180 ar_vs_jacobi:100 flex_training:60; do
  script=${part%:*}
  echo "== $script"
  # One that fails must not keep the others from their figures.
  "$python" "benchmarks/gpu/$script.py" --out "$out/gpu_$script.json" --seconds "${part#*:}" "${smoke[@]}" || status=1
done
echo "== attention"
heads=(--device cuda --dtype bfloat16 --contexts 512 8192)
[ ${#smoke[@]} -gt 0 ] && heads=(--contexts 64 --widths 1 8 --turns 3)
"$python" benchmarks/attention.py "${heads[@]}" --name "$(realpath "$out")/gpu_attention" || status=1
echo "== train_step"
step=(--models 0.5B --device cuda --dtype bfloat16 --blocks 30 --repeats 9)
[ ${#smoke[@]} -gt 0 ] && step=(--models tiny-base --objectives online --device cpu --blocks 2 --batch-size 2 --repeats 2)
"$python" benchmarks/train_step.py "${step[@]}" --name "$(realpath "$out")/gpu_train_step" || status=1
exit $status

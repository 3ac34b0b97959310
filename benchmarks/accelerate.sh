#!/usr/bin/env bash
# One step of what an accelerator is to tell: each is one command of under eight minutes on an H100.
#
#   benchmarks/accelerate.sh STEP [--smoke]
#
#   a  training step, guided sampling and agent updates as shares of the matrix product, the cpu preset
#   b  samplers, guidance and agents against their numpy references and closed forms, on the device
#   c  AGENT (td3_bc, or iql), 5 seeds at once, 1,000,000 updates on maze2d-umaze
#   d  policy-guided diffusion in the paper's size: steps and windows a second, share of the peak
#   e  the same as c on MAZE (medium, or large)
#   f  FQL, 3 seeds at once, 100,000 updates on cube-single
#
# accelerate_STEP.json goes to $OUT (benchmarks/results where it is unset), with command and hardware. --smoke
# runs the same with tiny sizes, anywhere. A step that is still at work after $LIMIT seconds (460) is stopped,
# and what it has reached by then is written. a, b and d need JAX, flax, optax, orbax, h5py and pytest; c, e
# and f all that jdp needs, and data (README.md of this folder).
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/.."

step="${1:-}" agent="${AGENT:-td3_bc}" maze="${MAZE:-medium}" python="${PYTHON:-python}"
if [[ ! "$step" =~ ^[a-f]$ ]]; then
  echo "accelerate.sh: ${step:-no step} given; choose one of a, b, c, d, e, f" >&2
  exit 2
fi
if [ $# -gt 2 ] || [ "${2:---smoke}" != --smoke ]; then
  echo "accelerate.sh: ${*:2} is no option; there is --smoke" >&2
  exit 2
fi
smoke="${2:-}"
out="${OUT:-$here/results}"
mkdir -p "$out"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

name="accelerate_$step"
case "$step" in c) name+="_$agent" ;; e) name+="_${maze}_$agent" ;; esac
[ -z "$smoke" ] || name+="_smoke"

measured() { # accelerator.py of a preset
  local options=(--preset "$1")
  [ -z "$smoke" ] || options=(--preset smoke --size 256 --repeats 1)
  command=("$python" benchmarks/accelerator.py "${options[@]}") found=(--json "$work/out")
}

trained() { # a script of experiments/, with its method, dataset and sizes
  local script="$1" kind="$2" method="$3" dataset="$4"
  shift 4
  local options=(--env "$dataset" --preset paper "$@")
  [ -z "$smoke" ] || options=(--env hopper-medium --source bundled --preset smoke --seeds 2)
  command=("$python" "experiments/$script.py" "--$kind" "$method" "${options[@]}" --out "$work/runs")
  found=(--runs "$work/runs")
}

maze() { # an agent in one of D4RL's mazes, four evaluations on the way
  trained offline_rl agent "$agent" "maze2d-$1-v1" --source recipe --seeds 5 --updates 1000000 \
    --evaluation.every 250000 --evaluation.episodes 20
}

closed_forms() {
  # TensorFloat-32 would hide errors a thousand times as large as those that the tests allow.
  export JAX_DEFAULT_MATMUL_PRECISION=highest
  local files=(tests/diffusion/test_samplers.py tests/diffusion/test_guidance.py
    tests/agents/test_td3_bc.py tests/agents/test_iql.py)
  [ -z "$smoke" ] || files=(tests/diffusion/test_samplers.py)
  JDP_TEST_PLATFORM="$("$python" -c 'import jax; print(dict(gpu="cuda").get(jax.default_backend(), jax.default_backend()))')"
  export JDP_TEST_PLATFORM XLA_PYTHON_CLIENT_PREALLOCATE=false # four processes share the device
  command=("$python" -m pytest -n 4 "${files[@]}" --junit-xml "$work/tests.xml")
  [ -z "$smoke" ] || command[4]=1
  found=(--tests "$work/tests.xml")
}

case "$step" in
  a) measured cpu ;;
  b) closed_forms ;;
  c) maze umaze ;;
  d) measured paper ;;
  e) maze "$maze" ;;
  f) trained policies policy fql cube-single-play-singletask-task2-v0 --seeds 3 --updates 100000 ;;
esac

told="${command[*]}" told="${told//"$work"/OUT}" told="python${told#"$python"}" began=$SECONDS status=0
timeout -s INT -k 20 "${LIMIT:-460}" "${command[@]}" >"$work/out" 2>"$work/err" || status=$?
told_why="$(tail -n 1 "$work/err")"
[ "$status" -eq 0 ] || echo "accelerate.sh $step: ${told_why:-the command ended with $status}" >&2
"$python" benchmarks/gather.py "${found[@]}" --step "$step" --status "$status" --seconds $((SECONDS - began)) \
  --command "$told" >"$work/gathered" || exit 1 # nothing was measured
mv "$work/gathered" "$out/$name.json"
echo "$out/$name.json"
exit "$status"

#!/bin/bash
# Every check and measurement that awaits a CUDA GPU, one step per result file; a step whose result is there already is passed over.
#
#   benchmarks/gpu.sh               run what is missing, each step in less than 9 minutes; stops after BUDGET seconds (default 540) to be called again
#   benchmarks/gpu.sh --list        say the steps, and which of them have a result; needs no GPU
#   benchmarks/gpu.sh --dry         say what every step would measure, without measuring; needs no GPU
#   benchmarks/gpu.sh --only WORD   only the steps whose name contains WORD
#
# PYTHON names the interpreter (default: .venv's, else python3), OUT the folder of the results (default benchmarks/results, where a result counts
# as there in any case). It needs torch with CUDA, triton, a C compiler, and of the other requirements numpy, pydantic, jaxtyping,
# psutil and transformers.
# Where those are missing and no package index can be reached, put them beside (for the interpreter of that machine) and name the folder in PYTHONPATH:
#   pip install --target FOLDER --only-binary=:all: --python-version 3.12 pydantic jaxtyping
set -u
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-benchmarks/results}
BUDGET=${BUDGET:-540}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
NEEDED="torch triton numpy pydantic jaxtyping transformers psutil"
mode=run only="" started=$SECONDS failed=0

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; }

while [ $# -gt 0 ]; do
  case $1 in
    --list) mode=list ;;
    --dry) mode=dry ;;
    --only) shift; only=${1:?--only needs a word} ;;
    -h | --help) usage; exit 0 ;;
    *) echo "gpu.sh: $1 is not known; see --help" >&2; exit 2 ;;
  esac
  shift
done

check_machine() {
  local missing
  missing=$("$PYTHON" -c '
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])' $NEEDED) || exit 1
  if [ -n "$missing" ]; then
    echo "gpu.sh: $PYTHON lacks: $missing (see --help for how to bring them along)" >&2; exit 1
  fi
  command -v "${CC:-gcc}" >/dev/null || command -v clang >/dev/null || { echo "gpu.sh: triton needs a C compiler (gcc or clang)" >&2; exit 1; }
  "$PYTHON" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "gpu.sh: no CUDA GPU answers; --list and --dry need none" >&2; exit 1; }
}

# step NAME SCRIPT ARGUMENTS...   runs `SCRIPT ARGUMENTS --json OUT/NAME.json`. A result appears only when the step has finished.
step() {
  local name=$1 script=$2 result=$OUT/$1.json kept=benchmarks/results/$1.json left status
  shift 2
  [[ -n $only && $name != *"$only"* ]] && return
  case $mode in
    list) if [ -e "$result" ] || [ -e "$kept" ]; then echo "done     $name"; else echo "missing  $name"; fi; return ;;
    dry) case " $script $* " in
           *" --check "* | " gpu_model.py "*) echo "$name: $script $*" ;;
           *) echo "$name:"; "$PYTHON" "benchmarks/$script" "${@/--sweep/}" --dry || failed=1 ;;
         esac; return ;;
  esac
  if [ -e "$result" ] || [ -e "$kept" ]; then echo "done     $name"; return; fi
  left=$((BUDGET - (SECONDS - started)))
  if [ $left -lt 60 ]; then echo "later    $name (call gpu.sh again)"; return; fi
  echo "running  $name: $script $*"
  mkdir -p "$OUT"
  timeout "$left" "$PYTHON" "benchmarks/$script" "$@" --json "$result" >"$OUT/$name.log" 2>&1
  status=$?
  case $status in
    0) echo "done     $name"; rm -f "$OUT/$name.log" ;;
    124) echo "cut off  $name after $left s: nothing is kept of it; see $OUT/$name.log" >&2; failed=1 ;;
    *) echo "failed   $name ($status): see $OUT/$name.log" >&2; failed=1 ;;
  esac
}

[ $mode = run ] && check_machine

# In the order of what is promised (docs/promises.md): whatever a lease has no time for comes last.
step kernels-check kernels.py --check
step model-checks gpu_model.py checks
step kernels-4096x4096 kernels.py --shape 4096x4096 --m 1
step decode-llama-2-7b gpu_model.py decode
step calibrate-llama-2-7b gpu_model.py calibrate --bits 2
step prefill-llama-2-7b gpu_model.py prefill
for shape in 22016x4096 12288x4096 4096x11008; do
  step "kernels-$shape" kernels.py --shape $shape --m 1
done
step kernels-few-rows kernels.py --shape 4096x4096 22016x4096 --m 1 2 4 8 --only salq cuBLAS
step kernels-prompt kernels.py --shape 4096x4096 22016x4096 --m 16 64 512 2048 --only salq cuBLAS
step kernels-sweep-4096x4096 kernels.py --sweep --shape 4096x4096
step kernels-sweep-22016x4096 kernels.py --sweep --shape 22016x4096
for shape in 6144x4096 28672x4096 4096x14336; do
  step "kernels-$shape" kernels.py --shape $shape --m 1
done
step calibrate-compiled-llama-2-7b gpu_model.py calibrate --bits 2 --compile
exit $failed

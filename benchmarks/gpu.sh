#!/usr/bin/env bash
# On a machine with a GPU and no way out: installs what was carried in .whl into a folder of its own, and runs benchmarks.gpu.
#
#   benchmarks/gpu.sh [ARGUMENTS OF benchmarks.gpu]      e.g. benchmarks/gpu.sh --only E,C1
#
# OUT: where rows, table and log go (default: gpu-results). SITE: where the wheels go (default: a temporary folder).
# LIMIT: seconds after which the run is interrupted; it still prints its table then.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${OUT:-gpu-results}"
site="${SITE:-$(mktemp -d)}"
mkdir -p "$out" "$site"
if compgen -G ".whl/*.whl" >/dev/null; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl
  rm -f "$site/nvidia/__init__.py" # nvImageCodec's own: it would hide the other packages of that name
fi
# Encoders are found by the entry points of the installed package, or of this folder.
if ! python3 -c 'from importlib.metadata import version; version("embedstore")' 2>/dev/null; then
  python3 -m benchmarks._gpu.metadata "$site"
fi
export PYTHONPATH="$site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
timeout -s INT -k 15 "${LIMIT:-460}" python3 -m benchmarks.gpu --out "$out" "$@" 2>&1 | tee "$out/log"

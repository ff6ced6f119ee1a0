#!/usr/bin/env bash
# `make lock`: requirements.lock out of pyproject.toml, by tools/make_lock.py on any Python 3.11.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."
python=$(bash tools/setup.sh --python)
exec "$python" tools/make_lock.py ${UPGRADE:+--upgrade}

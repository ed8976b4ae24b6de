#!/bin/sh
# SPDX-License-Identifier: MIT
# Signals while an image is written: nothing that was reported is lost, no space either.
. "$(dirname "$0")/lib.sh"
python3 "$here/signals.py" "$tool" "${2:-}"

#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks the direction of every #include: src/ by its layers, the command and the examples by
# their using public headers only.
set -eu
cd "$(dirname "$0")/../.."
find src -name '*.[ch]' | sort | xargs awk -f tests/lint/layers.awk
find tools examples -name '*.[ch]' | sort | xargs -r awk -v public_only=1 -f tests/lint/layers.awk

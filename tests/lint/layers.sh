#!/bin/sh
# SPDX-License-Identifier: MIT
# Checks the direction of every #include and every call of src/, and that the command and the
# examples use public headers only.
set -eu
cd "$(dirname "$0")/../.."
exec python3 tests/lint/layers.py

#!/bin/sh
# SPDX-License-Identifier: MIT
# Images that other programs made: what they show, and what the same commands make of a new image.
. "$(dirname "$0")/lib.sh"
corpus=$here/../../../shared/corpus
[ -d "$corpus" ] || skip 'no corpus of images beside the project (../shared/corpus)'
python3 "$here/corpus.py" "$tool" "$corpus"

#!/bin/bash -eu
# SPDX-License-Identifier: MIT
# build.sh of OSS-Fuzz: wants CC, CFLAGS, LIB_FUZZING_ENGINE, SRC, WORK and OUT as it sets them, and zlib,
# zstd and cmocka as packages. Static libraries of these go into the programs.
top=${SRC}/zqcow2
cmake -S "$top" -B "$WORK/build" -DCMAKE_BUILD_TYPE=None -DZQCOW2_URING=OFF -DZQCOW2_ASSERTS=ON \
    -DZQCOW2_FUZZ_ENGINE="$LIB_FUZZING_ENGINE"
cmake --build "$WORK/build" -j "$(nproc)" --target fuzz
mkdir -p "$WORK/seeds"
"$WORK/build/tests/fuzz/fuzz_corpus" "$WORK/seeds"
for target in header zones read repair ops command ctl ring; do
    cp "$WORK/build/tests/fuzz/fuzz_$target" "$OUT/"
    mkdir -p "$WORK/corpus/$target"
    case $target in command | ctl | ring) ;; *) cp "$WORK"/seeds/* "$WORK/corpus/$target/" ;; esac
    [ ! -d "$top/tests/fuzz/corpus/$target" ] || cp "$top/tests/fuzz/corpus/$target/"* "$WORK/corpus/$target/"
    (cd "$WORK/corpus/$target" && zip -q "$OUT/fuzz_${target}_seed_corpus.zip" ./*)
    [ ! -f "$top/tests/fuzz/$target.dict" ] || cp "$top/tests/fuzz/$target.dict" "$OUT/fuzz_$target.dict"
done

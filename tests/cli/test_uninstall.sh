#!/bin/sh
# SPDX-License-Identifier: MIT
# The target uninstall removes what was installed, and nothing else.
. "$(dirname "$0")/lib.sh"
build=$(cd "${2:?usage: $0 PATH_OF_ZQCOW2 BUILD}" && pwd)

# The build may have been installed in earnest: its manifest is put back.
manifest=$build/install_manifest.txt
[ ! -e "$manifest" ] || cp "$manifest" manifest.before
restore() {
    rm -f "$manifest"
    [ ! -e "$dir/manifest.before" ] || cp "$dir/manifest.before" "$manifest"
    rm -rf "$dir"
}
trap restore EXIT

rm -f "$manifest"
DESTDIR=$dir/root cmake --build "$build" --target uninstall >out 2>&1
is 'without an installation it fails' 1 $(($? != 0))
has 'and says why' out 'nothing was installed from this build'
mkdir -p root/opt/z/bin root/opt/z/include
echo mine >root/opt/z/bin/mine
DESTDIR=$dir/root cmake --install "$build" --prefix /opt/z >out 2>&1
is 'an installation' 0 $?
for file in bin/zqcow2 include/zqcow2/zqcow2.h share/doc/zqcow2/SPEC.md share/doc/zqcow2/DESIGN.md \
    share/bash-completion/completions/zqcow2 share/man/man1/zqcow2.1; do
    is "has put $file in place" yes "$([ -s root/opt/z/$file ] && echo yes || echo no)"
done
DESTDIR=$dir/root cmake --build "$build" --target uninstall >out 2>&1
is 'uninstall' 0 $?
is 'leaves what it did not install' './root/opt/z/bin/mine' "$(find . -path './root/*' ! -type d)"
is 'and no folder of its own' '' "$(find root -name '*zqcow2*')"
is 'but those of others' yes "$([ -d root/opt/z/include ] && echo yes)"
DESTDIR=$dir/root cmake --build "$build" --target uninstall >out 2>&1
is 'a second time it fails' 1 $(($? != 0))
has 'and says why' out 'already uninstalled'
has 'having named what is missing' out 'Not there: .*/opt/z/bin/zqcow2$'

# What cannot be removed is not passed over: a folder stands for a file of somebody else.
DESTDIR=$dir/root cmake --install "$build" --prefix '/op é (t)' >out 2>&1
is 'an installation below an odd name' 0 $?
rm "root/op é (t)/bin/zqcow2"
mkdir -p "root/op é (t)/bin/zqcow2/kept"
DESTDIR=$dir/root cmake --build "$build" --target uninstall >out 2>&1
is 'what cannot be removed' 1 $(($? != 0))
has 'is named' out 'cannot remove'
rmdir "root/op é (t)/bin/zqcow2/kept" "root/op é (t)/bin/zqcow2"
DESTDIR=$dir/root cmake --build "$build" --target uninstall >out 2>&1
is 'without it' 0 $?
is 'all goes' '' "$(find "root/op é (t)" ! -type d)"
finish

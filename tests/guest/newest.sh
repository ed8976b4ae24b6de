# SPDX-License-Identifier: MIT
# Debian's packages: kernels, and the newest QEMU and programs of file systems. They are unpacked in the
# cache, never installed. apt has lists, sources and a status of its own, so the machine's stay as they are.

debian() { # TOOL ARGUMENTS...
    tool=$1
    shift
    "$tool" -o Dir::Etc::sourcelist="$CACHE/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$CACHE/apt/lists" -o Dir::State::status="$CACHE/apt/status" \
        -o Dir::Cache::archives="$CACHE/apt/archives" -o Dir::Cache::pkgcache= \
        -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@"
}

# Only the suites that are asked for: a mirror need not have others, nor an older keyring know their keys.
update_lists() { # [--source] SUITE...
    [ "${LISTS_ARE_NEW:-}" != "$*" ] || return 0
    asked=$*
    kind=deb
    [ "$1" != --source ] || { kind=deb-src; shift; }
    mkdir -p "$CACHE/apt/lists/partial" "$CACHE/apt/archives/partial"
    : >"$CACHE/apt/status"
    for suite in "$@"; do
        echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
            "${ZQ_GUEST_MIRROR:-http://deb.debian.org/debian} $suite main"
    done >"$CACHE/apt/sources.list"
    debian apt-get update -qq >"$WORK/apt.log" 2>&1 || die "apt-get update, see $WORK/apt.log"
    LISTS_ARE_NEW=$asked
}

unpack() { # FOLDER PACKAGE-FILE...: anew
    rm -rf "$1.new"
    # The kernels of Debian 12 are from before /lib became a link to /usr/lib.
    mkdir -p "$1.new/usr/lib"
    into=$1
    shift
    for package in "$@"; do
        dpkg-deb -x "$package" "$into.new" || die "cannot unpack $package"
    done
    [ -e "$into.new/lib" ] || ln -s usr/lib "$into.new/lib"
    rm -rf "$into"
    mv "$into.new" "$into"
}

# ---- kernels ----

# The names of the packages that make the newest kernel of a series. Until 7.0 one package had both.
kernel_packages() { # SERIES
    case $1 in
    6.12) kind=image suite='deb12(\.[0-9]+)?' ;;
    *) kind=binary suite='deb[0-9]+' ;;
    esac
    version=$(debian apt-cache pkgnames "linux-$kind-$1." |
        sed -nE "s/^linux-$kind-([0-9.]+\+$suite)-amd64\$/\1/p" | sort -V | tail -1)
    [ -n "$version" ] || die "Debian has no linux-$kind-$1"
    echo "linux-$kind-$version-amd64"
    [ $kind = image ] || echo "linux-modules-$version-amd64 linux-base-$version-amd64"
}

download_kernel() { # SERIES
    say "downloading Debian's kernel $1 (about 120 MB)"
    case $1 in
    6.12) update_lists bookworm-backports ;;
    *) update_lists trixie-backports sid ;;
    esac
    packages=$(kernel_packages "$1") || exit 1
    (cd "$CACHE/apt/archives" && debian apt-get download -q $packages) >>"$WORK/apt.log" 2>&1 ||
        die "cannot download" $packages ", see $WORK/apt.log"
    for package in $packages; do
        mv "$CACHE/apt/archives/$package"_* "$CACHE/"
    done
}

# need_kernel SERIES: sets KERNEL (the boot image), KERNEL_ROOT and MODULES (the tree below lib/modules).
need_kernel() {
    KERNEL_ROOT=$CACHE/kernel
    [ "$1" = 6.12 ] || KERNEL_ROOT=$CACHE/kernel-$1
    if [ ! -e "$KERNEL_ROOT/done" ]; then
        kernel_files "$1" >/dev/null 2>&1 || download_kernel "$1"
        unpack "$KERNEL_ROOT" $(kernel_files "$1")
        depmod -b "$KERNEL_ROOT" "$(ls "$KERNEL_ROOT/lib/modules")"
        touch "$KERNEL_ROOT/done"
    fi
    release=$(ls "$KERNEL_ROOT/lib/modules")
    MODULES=$KERNEL_ROOT/lib/modules/$release
    KERNEL=$KERNEL_ROOT/boot/vmlinuz-$release
    [ -e "$KERNEL" ] || KERNEL=$MODULES/vmlinuz
    say "Linux $release"
}

# The newest of what was downloaded; fails if a part of it is missing.
kernel_files() { # SERIES
    case $1 in
    6.12) ls "$CACHE"/linux-image-"$1".*.deb | sort -V | tail -1 | grep . ;;
    *)
        binary=$(ls "$CACHE"/linux-binary-"$1".*.deb | sort -V | tail -1)
        [ -n "$binary" ] && version=${binary#"$CACHE"/linux-binary-} &&
            ls "$CACHE"/linux-*-"$version" && ls "$CACHE"/linux-base-"$version" >/dev/null
        ;;
    esac
}

# ---- programs and libraries of Debian unstable, with all that they link to ----

NEWEST_PACKAGES="qemu-system-x86 qemu-utils xfsprogs libblkio-dev"

# Sets NEWEST and NEWEST_QEMU. `$NEWEST/run PROGRAM ARGUMENTS...` runs a program of that release with its own
# loader and libraries.
need_newest() {
    NEWEST=$CACHE/newest
    if [ "$(cat "$NEWEST/done" 2>/dev/null)" != "$NEWEST_PACKAGES" ]; then
        say "downloading Debian's newest" $NEWEST_PACKAGES "(about 75 MB)"
        update_lists sid
        rm -f "$CACHE"/apt/archives/*.deb
        debian apt-get install -y -qq --download-only --no-install-recommends $NEWEST_PACKAGES \
            >>"$WORK/apt.log" 2>&1 </dev/null || die "apt-get failed, see $WORK/apt.log"
        unpack "$NEWEST" "$CACHE"/apt/archives/*.deb
        rm -f "$CACHE"/apt/archives/*.deb
        cp "$TOP/tests/guest/newest-run" "$NEWEST/run"
        chmod +x "$NEWEST/run"
        echo "$NEWEST_PACKAGES" >"$NEWEST/done"
    fi
    NEWEST_QEMU="$NEWEST/run qemu-system-x86_64 -L $NEWEST/usr/share/qemu -L $NEWEST/usr/share/seabios"
    say "$($NEWEST_QEMU --version | head -1)"
}

# need_source PACKAGE: sets SOURCE, a folder with the source of that package in sid.
need_source() {
    SOURCE=$CACHE/sources/$1
    [ ! -e "$SOURCE" ] || return 0
    say "downloading the source of $1"
    update_lists --source sid
    rm -rf "$SOURCE.new"
    mkdir -p "$SOURCE.new"
    (cd "$SOURCE.new" && debian apt-get source -q --download-only --tar-only "$1" &&
        tar -xf ./*.orig.tar.* --strip-components=1 && rm ./*.orig.tar.*) >>"$WORK/apt.log" 2>&1 ||
        die "cannot download the source of $1, see $WORK/apt.log"
    mv "$SOURCE.new" "$SOURCE"
}

# Two runs at a time would unpack into one folder.
lock_cache() {
    mkdir -p "$CACHE"
    exec 9>"$CACHE/lock"
    flock 9
}

unlock_cache() {
    exec 9>&-
}

# Programs of $NEWEST for the guest, with libraries and a loader of their own.
copy_newest() { # NAME...
    mkdir -p "$ROOT/newest"
    cp -L "$NEWEST/usr/lib64/ld-linux-x86-64.so.2" "$ROOT/newest/"
    for name in "$@"; do
        file=$(ls "$NEWEST"/usr/*bin/"$name")
        "$NEWEST/run" --list "$name" | sed -n 's/.*=> \(.*\) (.*/\1/p' | while read -r lib; do
            [ -e "$ROOT/newest/${lib##*/}" ] || cp -L "$lib" "$ROOT/newest/"
        done
        cp "$file" "$ROOT/newest/$name"
        cat >"$ROOT/bin/$name" <<EOF
#!/bin/busybox sh
exec /newest/ld-linux-x86-64.so.2 --library-path /newest /newest/$name "\$@"
EOF
        chmod +x "$ROOT/bin/$name"
    done
}

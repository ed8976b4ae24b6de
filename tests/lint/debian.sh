# SPDX-License-Identifier: MIT
# Bare Debians to build and test in; sourced. They lie in ${TMPDIR:-/var/tmp}. With $cache set to a
# folder, what debootstrap made is kept there as SUITE.tar and unpacked the next time.
[ "$(id -u)" = 0 ] || { echo 'must be root'; exit 1; }
# The mirror that this machine itself uses.
mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)*\([^ ]*\) .*/\2/p' /etc/apt/sources.list \
    /etc/apt/sources.list.d/debian* 2>/dev/null | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}
cache=

# debian_make ROOT SUITE
debian_make() {
    mkdir -p "$1"
    if [ -n "$cache" ] && [ -f "$cache/$2.tar" ]; then
        tar -xpf "$cache/$2.tar" -C "$1"
    else
        debootstrap --variant=minbase "$2" "$1" "$mirror" >/dev/null
        if [ -n "$cache" ]; then
            mkdir -p "$cache"
            tar -cpf "$cache/$2.tar.new" -C "$1" .
            mv "$cache/$2.tar.new" "$cache/$2.tar"
        fi
    fi
    chmod 755 "$1" # whatever the archive has: the user _apt reads it
    printf 'deb %s %s main\ndeb-src %s %s main\n' "$mirror" "$2" "$mirror" "$2" \
        >"$1/etc/apt/sources.list"
    cp /etc/resolv.conf "$1/etc/resolv.conf"
    # Whatever the machine needs to reach its mirror, the chroot needs too.
    cp /etc/apt/apt.conf.d/*prox* "$1/etc/apt/apt.conf.d/" 2>/dev/null || true
}

debian_mount() { # ROOT
    debian_umount "$1" # what a run left that was killed
    mount --bind /dev "$1/dev"
    mount --bind /dev/pts "$1/dev/pts"
    mount -t proc proc "$1/proc"
    mount -t tmpfs tmpfs "$1/dev/shm"
}

debian_umount() { # ROOT
    for mount in proc dev/shm dev/pts dev; do
        umount "$1/$mount" 2>/dev/null || true
    done
}

debian_remove() { # ROOT
    # Never across a mount that is still there: it would be the machine's own.
    grep -q " $1/" /proc/mounts || rm -rf --one-file-system "$1"
}

debian_run() { # ROOT COMMAND...
    root_of_run=$1
    shift
    chroot "$root_of_run" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp \
        DEBIAN_FRONTEND=noninteractive CI=true "$@" </dev/null
}

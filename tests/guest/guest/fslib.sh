# SPDX-License-Identifier: MIT
# The file systems under test: how each is made, mounted, loaded, verified and checked.

# XFS has zones since Linux 6.15; mkfs.xfs comes with the newest programs.
case $(uname -r) in
6.*) FILE_SYSTEMS="zonefs btrfs f2fs" ;;
*) FILE_SYSTEMS="zonefs btrfs f2fs xfs" ;;
esac

fs_image() { # FS FILE
    case $1 in
    btrfs) make_image $2 768M zone.size=16M zone.capacity=12M zone.max_open_zones=16 \
        zone.max_active_zones=20 ;;
    f2fs) make_image $2 768M zone.size=16M zone.conventional_zones=8 zone.max_open_zones=8 \
        zone.max_active_zones=10 ;;
    zonefs) make_image $2 64M zone.size=4M zone.capacity=3M zone.conventional_zones=2 \
        zone.max_open_zones=8 zone.max_active_zones=10 ;;
    # Its metadata and log are in conventional zones, at least 300 MiB of them.
    xfs) make_image $2 768M zone.size=16M zone.conventional_zones=20 zone.max_open_zones=8 \
        zone.max_active_zones=10 ;;
    esac
}

fs_make() { # FS: on $DEV
    case $1 in
    btrfs) mkfs.btrfs -q -f -O zoned -d single -m single $DEV ;;
    f2fs) mkfs.f2fs -q -f -m $DEV ;;
    zonefs) zqguest mkzonefs $DEV ;;
    xfs) mkfs.xfs -q -f -r zoned=1 $DEV ;;
    esac
}

fs_mount() {
    case $1 in
    zonefs) mount -t zonefs -o errors=remount-ro,explicit-open $DEV /mnt ;;
    *) mount -t $1 $DEV /mnt ;;
    esac
}

# The file system's own check, on the unmounted device.
fs_check() {
    case $1 in
    btrfs) btrfs check --check-data-csum $DEV ;;
    f2fs) fsck.f2fs --dry-run $DEV >/tmp/fsck 2>&1 && ! grep -E '\[FAIL\]|ASSERT' /tmp/fsck ||
        { cat /tmp/fsck; return 1; } ;;
    xfs) xfs_repair -n $DEV ;;
    zonefs) true ;; # its files are the zones: mounting has read them all
    esac
}

fs_load() { # FS SEED FROM TO
    case $1 in
    zonefs) zqguest zload run /mnt/seq $2 $3 $4 ;;
    *) mkdir -p /mnt/load && zqguest fsload run /mnt/load $2 $3 $4 ;;
    esac
}

fs_verify() { # FS SEED LAST
    [ $3 -gt 0 ] || return 0
    case $1 in
    zonefs) zqguest zload verify /mnt/seq $2 $3 ;;
    *) zqguest fsload verify /mnt/load $2 $3 ;;
    esac
}

many_files() {
    for i in $(seq 0 99); do
        echo "file $i" >"$1/$i" || return 1
    done
}

# A tree of real files: our own scripts, programs and modules.
write_tree() {
    mkdir -p /mnt/tree/a/b/c /mnt/tree/empty && cp -a /tests /mnt/tree/a/b/ &&
        cp -a /modules /mnt/tree/a/b/c/ && cp /bin/fio /bin/btrfs /mnt/tree/ &&
        ln -s a/b /mnt/tree/link && ln /mnt/tree/fio /mnt/tree/hard &&
        many_files /mnt/tree/a &&
        rm /mnt/tree/a/[0-4]? && mv /mnt/tree/a/99 /mnt/tree/moved && sync -f /mnt/tree
}

sums() {
    (cd /mnt/tree && find . -type f | sort | xargs sha256sum && find . | sort && readlink link)
}

tree() { # FS
    write_tree && sums >/tmp/sums.1 && zqguest fsload run /mnt/tree 5 1 1 >/dev/null &&
        sums >/tmp/sums.1 && umount /mnt && fs_mount $1 && sums >/tmp/sums.2 &&
        diff /tmp/sums.1 /tmp/sums.2 && wc -l </tmp/sums.2
}

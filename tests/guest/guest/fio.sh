# SPDX-License-Identifier: MIT
# fio's zoned mode: sequential and random writes, verified; several jobs; several open zones.
. /tests/fiolib.sh
load ublk_drv
F=/data/fio.qcow2

setup() {
    make_image $F 256M zone.size=4M zone.capacity=3M zone.conventional_zones=4 \
        zone.max_open_zones=12 zone.max_active_zones=14 && serve $F --queues 2
}

for ZQ_backend in file uring; do
    tap_say "# backend $ZQ_backend"
    ok "setup" setup
    fio_zoned
    ok "stop" zqcow2 ublk del $F
    ok "check" check_image $F
done

/* SPDX-License-Identifier: MIT */
/*
 * In a small header the name of the backing file makes room for an extension of ours, and bitmaps
 * are added in the same session: the name stays what it is, and so does what is inherited.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <zqcow2/backend.h>
#include <zqcow2/bitmap.h>
#include <zqcow2/zqcow2.h>

#define ZONE 8192u

static char folder[] = "/tmp/name-XXXXXX";
static struct zqcow2_resolver *files;

static int enter_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder) || chdir(folder) || zqcow2_resolver_new("top", NULL, &files);
}

static int remove_folder(void **state)
{
    (void)state;
    zqcow2_resolver_free(files);
    return unlink("base") || unlink("top") || chdir("/") || rmdir(folder);
}

static struct zqcow2_backend *file(const char *name)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_file_open(name, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &be), 0);
    return be;
}

static void create(const char *name, uint32_t cluster_size, const char *backing)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;

    unlink(name);
    be = file(name);
    o.cluster_size = cluster_size;
    o.resolve = zqcow2_resolve_file;
    o.resolve_arg = files;
    o.backing_name = backing;
    o.backing_format = backing ? "qcow2" : NULL;
    if (!backing) {
        o.virtual_size = 8 * ZONE;
        o.zone_size = ZONE;
    }
    assert_int_equal(zqcow2_create(be, &o, NULL), 0);
    zqcow2_backend_close(be);
}

static struct zqcow2_image *open_image(const char *name)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_RDWR;
    o.resolve = zqcow2_resolve_file;
    o.resolve_arg = files;
    assert_int_equal(zqcow2_open(file(name), &o, &img, NULL), 0);
    return img;
}

/* What puts an extension of ours into the header. */
static void insert(struct zqcow2_image *img, unsigned which)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;

    s.name = "s";
    if (which & 1)
        assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    if (which & 2)
        assert_int_equal(
            zqcow2_zone_set_state(img, 2 * ZONE, ZQCOW2_ZONE_RDONLY | ZQCOW2_ZONE_PERSIST), 0);
}

/* What composes the header anew. */
static void compose(struct zqcow2_image *img, unsigned how)
{
    assert_int_equal(zqcow2_bitmap_add(img, "b", 512, 0, NULL), 0);
    if (how == 1)
        assert_int_equal(zqcow2_bitmap_disable(img, "b", NULL), 0);
    if (how == 2)
        assert_int_equal(zqcow2_bitmap_remove(img, "b", NULL), 0);
}

static void holds(struct zqcow2_image *img)
{
    static uint8_t buf[ZONE], wanted[ZONE];
    struct zqcow2_backing b = ZQCOW2_BACKING_INIT;

    memset(wanted, 0x5a, sizeof(wanted));
    zqcow2_get_backing(img, &b);
    assert_string_equal(b.name, "base");
    assert_string_equal(b.format, "qcow2");
    assert_int_equal(zqcow2_read(img, buf, ZONE, 0), 0);
    assert_memory_equal(buf, wanted, ZONE);
}

static void the_name_stays(void **state)
{
    static uint8_t data[ZONE];
    uint64_t at = 0;
    struct zqcow2_image *img;

    (void)state;
    memset(data, 0x5a, sizeof(data));
    create("base", 512, NULL);
    img = open_image("base");
    assert_int_equal(zqcow2_append(img, data, ZONE, &at, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    for (unsigned i = 0; i < 27; i++) {
        create("top", 512u << i / 9, "base");
        img = open_image("top");
        insert(img, i % 3 + 1);
        compose(img, i / 3 % 3);
        holds(img);
        assert_int_equal(zqcow2_close(img), 0);
        img = open_image("top");
        holds(img);
        assert_int_equal(zqcow2_close(img), 0);
    }
    print_message("name_moves: 27 headers\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_name_stays)};

    return cmocka_run_group_tests_name("name moves", tests, enter_folder, remove_folder);
}

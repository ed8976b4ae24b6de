/* SPDX-License-Identifier: MIT */
/*
 * Which snapshot a word on the command line means: as for qemu-img the one with this ID, or else
 * the first with this name. Here the library takes names first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct search {
    const char *id, *name;       /* looked for; NULL: not */
    unsigned nr, by_id, by_name; /* counted from 1; 0: there is none */
    char *found;                 /* owned: the name of the one with the ID */
    bool no_memory;
};

static void look(void *arg, const struct zqcow2_snapshot *s)
{
    struct search *x = arg;

    x->nr++;
    if (x->id && !x->by_id && !strcmp(s->id, x->id)) {
        x->by_id = x->nr;
        x->found = strdup(s->name);
        x->no_memory = !x->found;
    }
    if (!x->by_name && !strcmp(s->name, x->name))
        x->by_name = x->nr;
}

/* Nothing of this ID, or what the library finds by it, too: the word is as good as any. */
static int choose(struct zqcow2_image *img, const char *word, char **chosen,
                  struct zqcow2_error *err)
{
    struct search x = {.id = word, .name = word}, named = {.id = NULL};
    int rc = zqcow2_snapshot_list(img, look, &x, err);

    *chosen = x.found;
    if (rc < 0 || x.no_memory)
        return rc < 0 ? rc : -ENOMEM;
    if (x.by_id && x.by_name && x.by_name != x.by_id) {
        named.name = x.found;
        rc = zqcow2_snapshot_list(img, look, &named, err);
        if (rc == 0 && named.by_name != x.by_id) {
            rc = -EINVAL;
            snprintf(err->text, sizeof(err->text),
                     "is the name of another snapshot, and the name of the one with this ID, too");
        }
        return rc;
    }
    free(x.found);
    *chosen = strdup(word);
    return *chosen ? 0 : -ENOMEM;
}

int zt_snapshot_apply(struct zqcow2_image *img, const char *word, struct zqcow2_error *err)
{
    char *name = NULL;
    int rc = choose(img, word, &name, err);

    if (rc == 0)
        rc = zqcow2_snapshot_apply(img, name, err);
    free(name);
    return rc;
}

int zt_snapshot_delete(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    struct search x = {.id = name, .name = name};
    int rc = zqcow2_snapshot_list(img, look, &x, err);

    free(x.found);
    if (rc < 0)
        return rc;
    if (x.by_name || !x.by_id)
        return zqcow2_snapshot_delete(img, name, err);
    snprintf(err->text, sizeof(err->text), "is an ID: a snapshot is deleted by its name");
    return -ENOENT;
}

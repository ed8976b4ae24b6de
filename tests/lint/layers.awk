# SPDX-License-Identifier: MIT
# Fails when an #include points up or sideways in the table of layers. Input: files of the tree,
# named from its top. See docs/DESIGN.md, "Layers".

BEGIN {
    split("base format backend cache qcow2 engine image api", order, " ")
    for (i in order)
        rank[order[i]] = i
    rank["zone"] = rank["qcow2"] # beside each other: neither may see the other
}

function complain(why) {
    printf "%s:%d: %s: %s\n", FILENAME, FNR, why, $0
    bad++
}

FNR == 1 {
    files++
    split(FILENAME, part, "/")
    in_src = part[1] == "src"
    layer = in_src ? part[2] : ""
    # A backend is what a stranger could have written: it may be several files with headers of
    # their own, but it does not see backend.[ch] and io.[ch], which serve all backends. threads.c
    # wraps any backend and so must look into it.
    stranger = layer == "backend" && part[3] !~ /^(backend|io|threads)\.[ch]$/
    if (in_src && !(layer in rank)) {
        printf "%s: a folder that is in no layer\n", FILENAME
        bad++
    }
}

/^[ \t]*#[ \t]*include[ \t]*"/ {
    name = $0
    sub(/^[^"]*"/, "", name)
    sub(/".*/, "", name)
    n = split(name, to, "/")
    if (!in_src) {
        if (public_only && n > 1 && (to[1] in rank))
            complain("uses the library's inside")
        next
    }
    if (n != 2 || !(to[1] in rank))
        complain("not written as \"layer/file.h\"")
    else if (rank[to[1]] > rank[layer])
        complain(layer " looks up to " to[1])
    else if (rank[to[1]] == rank[layer] && to[1] != layer)
        complain(layer " looks sideways at " to[1])
    else if (stranger && to[1] != "base" && (to[1] != layer || to[2] ~ /^(backend|io)\.h$/))
        complain("a backend has only <zqcow2/backend.h>, base/ and its own files")
    from = FILENAME
    sub(/^src\//, "", from)
    if (from ~ /\.h$/)
        edge[from] = edge[from] " " name
}

/^[ \t]*#[ \t]*include[ \t]*<zqcow2\/queue\.h>/ && stranger {
    complain("a backend does not see the queue")
}

# Headers may not go round in a circle either.
function walk(h, path,    next_one, k, j) {
    if (index(path, " " h " ")) {
        printf "a circle of includes:%s%s\n", path, h
        bad++
        return
    }
    if (seen[h]++)
        return
    k = split(edge[h], next_one, " ")
    for (j = 1; j <= k; j++)
        walk(next_one[j], path h " ")
}

END {
    for (h in edge)
        walk(h, " ")
    if (!files) {
        print "no files were given"
        exit 1
    }
    printf "layers: %d files, %d wrong\n", files, bad + 0
    exit bad > 0
}

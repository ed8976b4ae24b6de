# SPDX-License-Identifier: MIT
"""What the qemu-img and the qemu-io of this folder share: they stand for QEMU's programs in QEMU's
own tests. ZQ_TOOL: the command zqcow2; ZQ_JUDGE: the folder of QEMU's programs, in the mixed run."""
import getopt, os, re, sys
TOOL, JUDGE, NAME = os.environ["ZQ_TOOL"], os.environ.get("ZQ_JUDGE"), os.path.basename(sys.argv[0])
INPUT, FILE = [], " ".join(sys.argv[-2:-1]) # the standard input, if it was read; the operand of create
OPEN, BELOW = ((r"can't open device \1:", r"can't open device \1: Could not open backing file:") if NAME == "qemu-io" else
               (r"Could not open '\1':", r"\1:"))
# The tool's messages in the words of QEMU.
WORDS = [(r"^zqcow2: (\S+): backing file \"(\S+)\": (No such .*)", rf"{NAME}: {BELOW} Could not open '\2': \3" +
          "\nCould not open backing image." * (NAME == "qemu-img")),
         (r"^zqcow2: (\S+): (No such file or directory)", rf"{NAME}: {OPEN} Could not open '\1': \2"),
         (r"^zqcow2: backing file \"(\S+)\": the chain returns.*", rf"{NAME}: Backing file '\1' creates an infinite loop."),
         (r"^leak at (\S+)-\S+ .*refcount (\d+), references (\d+)", r"Leaked cluster at \1 refcount=\2 reference=\3"),
         (r"size \d+: needs an L1 table above 32 MiB.*",
          "The image size is too large for file format 'qcow2' (try using a larger cluster size)"),
         (r"^zqcow2: (\S+): cannot be checked: .*does not cover the size", rf"{NAME}: Could not open '\1': Image is too big"),
         ("^zqcow2: compat: '", "zqcow2: version: '"), ("^zqcow2: create: -b needs the name of a backing file.*",
          f"{NAME}: {FILE}: Expected backing file name, got empty string"),
         (r"^zqcow2: (\w+): '(\S+)' is not one of .*", rf"{NAME}: {FILE}: Parameter '\1' does not accept value '\2'"),
         ("^zqcow2: convert: -n cannot be given with -o.*", f"{NAME}: -o has no effect when skipping image creation"),
         ("^zqcow2: lazy_refcounts: not with compat=0.10", f"{NAME}: {FILE}: Lazy refcounts only supported with "
          "compatibility level 1.1 and above (use version=v3 or greater)"),
         (r"^zqcow2: (?:\S+: )?cluster_size:? .*", f"{NAME}: {FILE}: Cluster size must be a power of two between 512 and 2048k"),
         (r"^write failed: Read-only file system", "qemu-io: Block node is read-only"),
         (r"((?:read|write)v?) failed: (?:Invalid argument|the image is corrupt)", r"\1 failed: Input/output error"),
         ("^zqcow2: ", f"{NAME}: ")]
# What limits a device changes neither content nor answers.
LIMITS = set("driver file.driver file.filename image.file.filename file.align image.driver align max-transfer "
             "opt-write-zero max-write-zero opt-discard max-discard".split())

class Cannot(Exception):
    """zqcow2 has no such thing: QEMU's program does it in the mixed run; else the call fails."""

def theirs():
    """Runs QEMU's program instead, with the standard input that was read already."""
    if INPUT:
        os.dup2(os.memfd_create("in"), 0)
        os.pwrite(0, INPUT[0].encode(), 0)
    os.execv(f"{JUDGE}/{NAME}", [NAME] + sys.argv[1:])

def main(body):
    try:
        sys.exit(body(sys.argv[1:]))
    except (Cannot, getopt.GetoptError, ValueError) as e:
        sys.exit(theirs() if JUDGE else f"{NAME}: zqcow2 cannot: {e}")

def options(argv, spec):
    """(option, its word of spec, value)... and the operands. A word of spec: an option; with ':' it has
    a value, after '=' is its name for zqcow2, with '!' it means nothing for it."""
    words = {w.rstrip("!").split("=")[0].rstrip(":"): w for w in spec.split()}
    shorts = "".join(o[1:] + ":" * (":" in w) for o, w in words.items() if o[1] != "-")
    opts, rest = getopt.gnu_getopt(argv, shorts, [o[2:] + "=" * (":" in w) for o, w in words.items() if o[1] == "-"])
    return [(o, words[o], v) for o, v in opts], rest

def path_of(text, image_opts=False, more=""):
    """The file that a name of QEMU's block layer means, if that is all that it says."""
    o = dict(p.split("=", 1) for p in (f"{more},{text}" if image_opts else more).split(",") if "=" in p)
    text = o.get("file.filename") or o.get("image.file.filename", "") if image_opts else text
    text = text[10:] if more and text[:10] == "blkdebug::" else os.path.join(".", text[5:]) if text[:5] == "file:" else text
    if set(o) - LIMITS or {o.get(k, "qcow2") for k in ("driver", "image.driver", "file.driver")} - \
            {"qcow2", "blkdebug", "file"} or re.match(r"[a-z]+:(?!//)[^/]*[{:/]", text):
        raise Cannot(f"{more} {text}")
    return text

def format_of(path):
    """What cannot be opened is left to zqcow2, to be reported."""
    return "qcow2" if not os.path.isfile(path) or open(path, "rb").read(4) == b"QFI\xfb" else "raw"

def say(text, out):
    for ours, words in WORDS:
        text = re.sub(ours, words, text, flags=re.M)
    print(text, end="\n" * (text != "" and text[-1] != "\n"), file=out, flush=True)

def tool(*argv):
    """Runs the tool, and passes its messages on; its output and its exit status."""
    out, err = os.memfd_create("out"), os.memfd_create("err")
    pid = os.posix_spawn(TOOL, [TOOL, *argv], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1),
                                                                        (os.POSIX_SPAWN_DUP2, err, 2)])
    status, out, err = os.waitpid(pid, 0)[1], *(os.pread(f, 1 << 26, 0).decode(errors="replace") for f in (out, err))
    if JUDGE and re.search("(protocol|encryption) is not supported|option '.*' is unknown|unknown option|cannot be amended|unexpected operand|-B cannot", err):
        raise Cannot(err) # what was printed is lost: theirs prints it, too
    sys.stdout.flush()
    with open(os.environ["ZQ_LEDGER"], "a", encoding="utf-8") as f:
        print(os.environ["TEST_DIR"], *argv, file=f)
    say(err, sys.stderr)
    if os.WIFSIGNALED(status):
        say(out, sys.stdout)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return out, os.waitstatus_to_exitcode(status)

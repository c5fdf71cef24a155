#!/usr/bin/env python3
"""What the services say at level notice and above, and what docs/operations.md says to do about it.

  messages.py list              every message of the sources: LEVEL FILE TEXT, … for what varies
  messages.py check DOCUMENT    each has an entry, each entry has a message; 1 and what is missing otherwise

A message is the format of a log_err, log_warning or log_notice, or of what ends in one (WRAPPERS).  An entry is a list
item that begins with one or several messages in backticks, in which … stands for anything.
"""
import ast, glob, re, sys

SOURCES = sorted(glob.glob("services/*/*.c") + glob.glob("lib/run/*.c"))
# name: level, which argument is the format, what is said around it
WRAPPERS = {
    "log_err": ("err", 0, "{}"), "log_warning": ("warning", 0, "{}"), "log_notice": ("notice", 0, "{}"),
    "fsd_fail": ("err", 1, "{}"), "server_fail": ("err", 2, "the server of term … stops: {}: …"),
}
CALL = re.compile(r"\b(%s)\(" % "|".join(WRAPPERS))
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|/\*.*?\*/|//[^\n]*|.', re.S)
SPEC = re.compile(r"%(?:%|[-+ #0]*[0-9*]*(?:\.[0-9*]+)?(?:hh|h|ll|l|z|j)?[a-zA-Z])")

def arguments(text, at):
    """The arguments of a call whose parenthesis opens before `at`, as lists of tokens."""
    args, depth = [[]], 0
    for t in (m.group(0) for m in TOKEN.finditer(text, at)):
        if t in "([{":
            depth += 1
        elif t in ")]}":
            depth -= 1
            if depth < 0:
                return args
        if t == "," and depth == 0:
            args.append([])
        elif not t.startswith(("/*", "//")):
            args[-1].append(t)
    return args

def formats(tokens):
    """The strings an argument may be: literals side by side are one, with … for a name between them; a ?: has several."""
    out, between = [], None
    for t in tokens:
        if t.startswith('"'):
            s = ast.literal_eval(t)
            if between is not None and re.fullmatch(r"\w*", between):
                out[-1] += ("…" if between else "") + s
            else:
                out.append(s)
            between = ""
        elif between is not None and not t.isspace():
            between += t
    return out

def messages():
    for path in SOURCES:
        text = open(path, encoding="utf-8").read()
        text = re.sub(r'%[0-9]*"\s*PRI[a-zA-Z0-9]+\s*"?', lambda m: '%llu' if m.group(0).endswith('"') else '%llu"', text)
        text = re.sub(r'%[0-9]*"\s*PRI[a-zA-Z0-9]+', '%llu"', text)
        for call in CALL.finditer(text):
            level, nr, around = WRAPPERS[call.group(1)]
            args = arguments(text, call.end())
            if len(args) <= nr:
                continue
            line = text.count("\n", 0, call.start()) + 1
            for fmt in formats(args[nr]):
                said = around.format(re.sub(r"…+", "…", SPEC.sub("…", fmt).replace("\n", " ")))
                yield level, "%s:%d" % (path, line), said

def entries(path):
    """Each pattern of the document, with its line."""
    items = []
    for nr, line in enumerate(open(path, encoding="utf-8"), 1):
        if line.startswith("- `"):
            items.append((nr, line[2:]))
        elif line.startswith("  ") and items and items[-1][1].endswith("\n"):
            items[-1] = (items[-1][0], items[-1][1] + line.strip() + "\n")
        elif items:
            items[-1] = (items[-1][0], items[-1][1].rstrip("\n"))
    for nr, item in items:
        head = re.match(r"(?:`[^`]+`[,:\s]*(?:or )?)+", item.replace("\n", " ")).group(0)
        for p in re.findall(r"`([^`]+)`", head):
            yield nr, p

def compiled(pattern):
    return re.compile(".*".join(re.escape(p) for p in pattern.split("…")), re.S)

def main():
    if sys.argv[1:] == ["list"]:
        for m in messages():
            print("%-7s %-34s %s" % m)
        return 0
    if len(sys.argv) != 3 or sys.argv[1] != "check":
        sys.exit(__doc__)
    known = [(nr, p, compiled(p)) for nr, p in entries(sys.argv[2])]
    used, bad = set(), 0
    for level, where, said in messages():
        hits = [(nr, p) for nr, p, rx in known if rx.fullmatch(said)]
        used.update(hits)
        if not hits and re.search(r"\w", said):
            print("%s: no entry for the %s \"%s\"" % (where, level, said))
            bad += 1
    for nr, p, rx in known:
        if (nr, p) not in used:
            print("%s:%d: no service says \"%s\"" % (sys.argv[2], nr, p))
            bad += 1
    return 1 if bad else 0

sys.exit(main())

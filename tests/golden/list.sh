#!/bin/bash
# What a mount shows of a volume, a line a path, sorted: kind, mode, owner, links, size, blocks, times
# of change, target, contents, attributes.
cd "$1" || exit 1
export LC_ALL=C
find . -printf '%P\t%y %m %U:%G %n %s %b %T@ %C@ %l\n' | sort
find . -type f -print0 | sort -z | xargs -0 sha256sum
getfattr -R -h -d -m - -e hex . 2>/dev/null | sed '/^$/d'
getfacl -R -n -p . 2>/dev/null | sed '/^$/d'

#!/bin/sh
# Prints the Python to make the virtual environment with, or says what is missing. $PYTHON comes first.
set -u
usable='
import sys
try:
    import ensurepip, venv
except ImportError:
    sys.exit(3)
sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 12) else 4 if sys.version_info >= (3, 13) else 5)
'
without_venv=''
newer=''
for candidate in ${PYTHON:-} python3 python3.12 python3.11 python; do
    "$candidate" -c "$usable" >/dev/null 2>&1
    case $? in
        0) command -v "$candidate"; exit 0 ;;
        3) without_venv="$without_venv $candidate" ;;
        4) newer=${newer:-$candidate} ;;
    esac
done
if [ -n "$newer" ] && command -v redis-server >/dev/null 2>&1; then
    command -v "$newer"
    exit 0
fi
{
    echo "Meterhouse needs Python 3.11 or 3.12 with its venv module, and found none."
    if [ -n "$without_venv" ]; then
        echo "These have no venv module:$without_venv (on Debian and Ubuntu: apt install python3-venv)."
    fi
    if [ -n "$newer" ]; then
        echo "$newer is newer than 3.12: it works with a redis-server 7 or later on PATH, because the Redis wheel stops at 3.12."
    fi
    echo "Another one can be named: make PYTHON=/path/to/python3.12 …"
} >&2
exit 1

#!/bin/sh
# Prints example.env with a random value for every secret that is empty. Write it where nobody else reads it.
set -eu
folder=$(dirname "$0")
random() {
    head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}
while IFS= read -r line; do
    case $line in
        *_KEY= | *_SECRET= | *_PEPPER= | *_PASSWORD= | *_TOKEN=) printf '%s%s\n' "$line" "$(random)" ;;
        *) printf '%s\n' "$line" ;;
    esac
done <"$folder/example.env"

#!/bin/sh
# A post_archive_script: one line per archived file for whoever watches the archive.
#
#   post_archive_script = /etc/walarch/hooks/post_archive.sh /var/log/walarch-archived.tsv
#
# BARMAN_ERROR is empty when the file is durable in the archive; otherwise it says why it is not.
set -eu
[ "$BARMAN_PHASE" = post ]
printf '%s\t%s\t%s\t%s\t%s\n' \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$BARMAN_SERVER" "$BARMAN_SEGMENT" "$BARMAN_SIZE" \
    "${BARMAN_ERROR:-archived}" >>"${1:?usage: post_archive.sh FILE}"

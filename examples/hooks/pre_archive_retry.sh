#!/bin/sh
# A pre_archive_retry_script: archive only while there is room for it.
#
#   pre_archive_retry_script = /etc/walarch/hooks/pre_archive_retry.sh /srv/barman 5
#
# The exit code decides: 0 go on; 62 give up asking, and go on; 63 stop, everything that is not
# archived yet stays in its queue; any other one is asked again after 3 seconds (every sixth time
# after 60 seconds).
set -eu
directory=${1:?usage: pre_archive_retry.sh DIRECTORY FREE_PERCENT_MIN}
free_percent_min=${2:?usage: pre_archive_retry.sh DIRECTORY FREE_PERCENT_MIN}
used_percent=$(df -P "$directory" | awk 'NR == 2 { sub("%", "", $5); print $5 }')
if [ $((100 - used_percent)) -lt "$free_percent_min" ]; then
    echo "$directory is ${used_percent} % full: not archiving $BARMAN_SEGMENT" >&2
    exit 63
fi

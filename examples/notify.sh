#!/bin/sh
# Tells everybody who listens to a topic how a command ended.
# Usage: SEED=atonce://PEERID@HOST:PORT examples/notify.sh TOPIC COMMAND [ARGUMENT ...]
# Listen, on any machine: atonce listen TOPIC --seed "$SEED" --profile ~/.listener --exec 'logger -t atonce'
set -u
topic=$1
shift
"$@"
code=$?
printf '%s: %s ended with %s\n' "$(uname -n)" "$*" "$code" |
    ${ATONCE:-atonce} notify "$topic" --seed "$SEED" --profile "${PROFILE:-$HOME/.notifier}" || exit 1
exit "$code"

#!/bin/bash
# Check the server as healthcheck.sh of the published image does: --connect, --innodb_initialized.
set -euo pipefail

for check in "$@"; do
    case $check in
    # Without a network, the server is still initialising its volume.
    --connect) [[ $(mariadb --skip-column-names --execute "SELECT @@skip_networking") == 0 ]] ;;
    --innodb_initialized) [[ $(mariadb --skip-column-names --execute "SELECT 1 FROM information_schema.ENGINES
        WHERE engine = 'innodb' AND support IN ('YES', 'DEFAULT', 'ENABLED')") == 1 ]] ;;
    *) echo "$check is not a check of this image: use --connect and --innodb_initialized" >&2; exit 2 ;;
    esac
done

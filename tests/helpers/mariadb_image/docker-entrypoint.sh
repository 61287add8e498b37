#!/bin/bash
# Start the server. If its volume is empty, first create the database and the user that the MARIADB_ variables name.
set -euo pipefail

# Like the published image, accept options of the server without its name.
[[ ${1:-} != -* ]] || set -- mariadbd "$@"
[[ ${1:-mariadbd} == mariadbd ]] || exec "$@"

quoted() { # the content of a file as a string of SQL
    printf "'%s'" "$(sed "s/[\\\\']/\\\\&/g" "$1")"
}

if [[ ! -d /var/lib/mysql/mysql ]]; then
    # With `socket`, the operating system's user `mysql` may do everything without a password. healthcheck.sh uses that.
    mariadb-install-db --auth-root-authentication-method=socket --auth-root-socket-user=mysql --skip-test-db
    mariadbd --skip-networking &
    server=$!
    until mariadb-admin --silent ping; do
        kill -0 $server
        sleep 0.2
    done
    mariadb --default-character-set=utf8mb4 <<SQL
CREATE DATABASE \`$MARIADB_DATABASE\`;
CREATE USER '$MARIADB_USER'@'%' IDENTIFIED BY $(quoted "$MARIADB_PASSWORD_FILE");
GRANT ALL ON \`$MARIADB_DATABASE\`.* TO '$MARIADB_USER'@'%';
CREATE OR REPLACE USER root@localhost IDENTIFIED BY $(quoted "$MARIADB_ROOT_PASSWORD_FILE");
GRANT ALL ON *.* TO root@localhost WITH GRANT OPTION;
SQL
    kill $server
    wait $server
fi
exec "$@"

#!/bin/sh
# Make a Debian machine one of the lab's two: `app` (the traced program) or `db` (PostgreSQL).
# The Vagrantfile runs it; the QEMU lab (tests/vm) builds its images with the same parts.
#
#   provision.sh app DB_ADDRESS        all of it on this machine, and the clone's own setup
#   provision.sh db NETWORK            likewise; NETWORK may connect (192.168.56.0/24)
#   provision.sh packages ROLE...      print the Debian packages of these roles
#   provision.sh server NETWORK [ROOT] let NETWORK reach the PostgreSQL installed below ROOT
#   provision.sh role                  create the demo's role in the running server
#   provision.sh client DB_ADDRESS [ROOT]  name the server for `awaitscope demo`
set -eu

role=demo
password=demo # a lab on a private network; nothing else is in this server

packages() {
	for one in "$@"; do
		case $one in
		app) echo python3 python3-venv python3-dev python3-bpfcc gcc libc6-dev make git iproute2 ;;
		db) echo postgresql ;;
		*) echo "provision: there is no role $one" >&2 && exit 2 ;;
		esac
	done
}

server() {
	for folder in "${2-}"/etc/postgresql/*/main; do
		mkdir -p "$folder/conf.d"
		echo "listen_addresses = '*'" >"$folder/conf.d/awaitscope.conf"
		line="host all $role $1 scram-sha-256"
		grep -qxF "$line" "$folder/pg_hba.conf" || echo "$line" >>"$folder/pg_hba.conf"
	done
}

create_role() {
	cd /
	setpriv --reuid=postgres --regid=postgres --init-groups psql -qv ON_ERROR_STOP=1 postgres <<-SQL
		SELECT 'CREATE ROLE $role LOGIN' WHERE NOT EXISTS
		    (SELECT FROM pg_roles WHERE rolname = '$role') \\gexec
		ALTER ROLE $role PASSWORD '$password';
		GRANT CREATE ON DATABASE postgres TO $role;
	SQL
}

client() {
	mkdir -p "${2-}/etc/profile.d" "${2-}/etc/sudoers.d"
	echo "export AWAITSCOPE_DSN='postgresql://$role:$password@$1:5432/postgres?sslmode=disable'" \
		>"${2-}/etc/profile.d/awaitscope.sh"
	echo 'Defaults env_keep += "AWAITSCOPE_DSN"' >"${2-}/etc/sudoers.d/awaitscope"
	chmod 0440 "${2-}/etc/sudoers.d/awaitscope"
}

install() {
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	# shellcheck disable=SC2046 # a list of names
	apt-get install -qq -y --no-install-recommends $(packages "$1") >/dev/null
}

case ${1-} in
packages) shift && packages "$@" ;;
server) shift && server "$@" ;;
role) create_role ;;
client) shift && client "$@" ;;
db)
	install db
	server "$2"
	service postgresql restart
	create_role
	;;
app)
	install app
	client "$2"
	make -C /home/vagrant/awaitscope setup
	;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
esac

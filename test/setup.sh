#!/bin/sh
# Installs what the tests compare Cauce with, from package registries and by name, into .cache/, and reuses it:
# .cache/venv (test/requirements.txt), .cache/airflow (test/airflow/requirements.txt), .cache/clients (test/sharing/requirements.txt), .cache/superset (test/superset/requirements.txt), .cache/checkov (test/infra/requirements.txt), .cache/jars (test/spark-pom.xml), .cache/jdbc, .cache/node, .cache/s3a (test/s3a-pom.xml), .cache/kafka (test/kafka-pom.xml), .cache/registry and .cache/bin (programs in Go). What cannot be had is named and left out;
# the tests that need it are then skipped by that name (test/prerequisites.txt).
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p .cache

has() { command -v "$1" >/dev/null 2>&1; }

# system PROGRAM PACKAGE… : from the system's packages, where this user may install them.
system() {
	program=$1
	shift
	has "$program" && return 0
	if has apt-get && [ "$(id -u)" = 0 ]; then
		echo "setup: installing $*"
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
			>.cache/apt.log 2>&1 </dev/null || echo "setup: apt-get could not install $* (see .cache/apt.log)"
	fi
	has "$program"
}

# installed FOLDER VERSION: it is there already.
installed() { [ "$(cat "$1/.installed" 2>/dev/null)" = "$2" ]; }

# python REQUIREMENTS FOLDER: the packages of a file in a virtual environment of their own.
python() {
	want=$(cksum "$1")
	installed "$2" "$want" && return 0
	system python3 python3 python3-venv || return 1
	echo "setup: Python packages into $2"
	rm -rf "$2"
	{ python3 -m venv "$2" && "$2/bin/pip" install --disable-pip-version-check -q -r "$1"; } \
		>"$2.log" 2>&1 </dev/null || { rm -rf "$2"; tail -n 3 "$2.log"; return 1; }
	echo "$want" >"$2/.installed"
}

# dependencies POM FOLDER WHAT [FLAG…]: the jars that a project of Maven depends on.
dependencies() {
	pom=$1
	folder=$2
	what=$3
	shift 3
	want=$(cksum "$pom")
	installed "$folder" "$want" && return 0
	system mvn maven || return 1
	echo "setup: $what into $folder"
	rm -rf "$folder"
	mvn -B -q -f "$pom" dependency:copy-dependencies -DoutputDirectory="$PWD/$folder" -DincludeScope=runtime "$@" \
		>"$folder.log" 2>&1 </dev/null || { rm -rf "$folder"; tail -n 3 "$folder.log"; return 1; }
	echo "$want" >"$folder/.installed"
}

java_runtime() { system java openjdk-17-jre-headless; }

jars() {
	system javac openjdk-17-jdk-headless || java_runtime || return 1
	dependencies test/spark-pom.xml .cache/jars "jars of Spark" \
		-DincludeArtifactIds=delta-spark_4.2_2.13,delta-storage,delta-kernel-api,delta-kernel-defaults,delta-kernel-unitycatalog,unitycatalog-client,unitycatalog-hadoop,jackson-datatype-jdk8,shims,spark-sql-kafka-0-10_2.13,spark-token-provider-kafka-0-10_2.13,kafka-clients,commons-pool2
}

s3a() { dependencies test/s3a-pom.xml .cache/s3a "Hadoop's S3 client"; }

kafka() { java_runtime && dependencies test/kafka-pom.xml .cache/kafka "Apache Kafka"; }

# A schema registry, Apicurio, whose next line needs Java 21.
registry() {
	want=3.0.9
	installed .cache/registry "$want" && return 0
	java_runtime || return 1
	system mvn maven || return 1
	echo "setup: a schema registry into .cache/registry"
	rm -rf .cache/registry
	# It leaves its marks in a folder that is named for a project, which there is none of.
	(cd .cache && mvn -B -q dependency:unpack -Dartifact="io.apicurio:apicurio-registry-app:$want:tar.gz:all" -DoutputDirectory="$PWD/registry" &&
		rm -rf './${project.basedir}') >.cache/mvn-registry.log 2>&1 </dev/null || { rm -rf .cache/registry; tail -n 3 .cache/mvn-registry.log; return 1; }
	echo "$want" >.cache/registry/.installed
}

# PostgreSQL's drivers for JDBC and for Node.js.
pgjdbc() {
	want=42.7.14
	installed .cache/jdbc "$want" && return 0
	system javac openjdk-17-jdk-headless || return 1
	system mvn maven || return 1
	echo "setup: a driver for JDBC into .cache/jdbc"
	rm -rf .cache/jdbc
	mvn -B -q dependency:copy -Dartifact="org.postgresql:postgresql:$want" -DoutputDirectory="$PWD/.cache/jdbc" \
		>.cache/mvn-jdbc.log 2>&1 </dev/null || { rm -rf .cache/jdbc; tail -n 3 .cache/mvn-jdbc.log; return 1; }
	echo "$want" >.cache/jdbc/.installed
}

node_postgres() {
	want=8.23.1
	installed .cache/node "$want" && return 0
	has npm || return 1
	echo "setup: a driver for Node.js into .cache/node"
	rm -rf .cache/node
	mkdir -p .cache/node
	npm install --silent --no-fund --no-audit --prefix "$PWD/.cache/node" "pg@$want" \
		>.cache/npm-pg.log 2>&1 </dev/null || { rm -rf .cache/node; tail -n 3 .cache/npm-pg.log; return 1; }
	echo "$want" >.cache/node/.installed
}

# versitygw is a server of S3's protocol over a folder.
versitygw() {
	want=v1.8.0
	[ "$(cat .cache/bin/.versitygw 2>/dev/null)" = "$want" ] && return 0
	echo "setup: versitygw into .cache/bin"
	mkdir -p .cache/bin
	(cd / && GOFLAGS= GOBIN="$OLDPWD/.cache/bin" go install "github.com/versity/versitygw/cmd/versitygw@$want") \
		>.cache/versitygw.log 2>&1 </dev/null || { tail -n 3 .cache/versitygw.log; return 1; }
	echo "$want" >.cache/bin/.versitygw
}

[ "$(uname -s)" != Linux ] || system mold mold || true # a faster linker, nothing more (see the Makefile)
python test/requirements.txt .cache/venv || echo "setup: no Python packages: their tests are skipped"
python test/airflow/requirements.txt .cache/airflow || echo "setup: no Airflow: its tests are skipped"
python test/sharing/requirements.txt .cache/clients || echo "setup: no Python clients of shares: their tests are skipped"
python test/superset/requirements.txt .cache/superset || echo "setup: no Superset: its test is skipped"
jars || echo "setup: no jars: their tests are skipped"
registry || echo "setup: no schema registry: its test is skipped"
python test/infra/requirements.txt .cache/checkov || echo "setup: no checkov: its test is skipped"
s3a || echo "setup: no jars for S3: Spark's test on S3 is skipped"
kafka || echo "setup: no Kafka: its tests are skipped"
pgjdbc || echo "setup: no driver for JDBC: its tests are skipped"
node_postgres || echo "setup: no driver for Node.js: its test is skipped"
ls /usr/lib/*/odbc/psqlodbcw.so >/dev/null 2>&1 || system odbcinst unixodbc odbcinst odbc-postgresql || echo "setup: no driver for ODBC: its tests are skipped"
system chromium chromium || echo "setup: no Chromium: its tests are skipped"
versitygw || echo "setup: no versitygw: tests on S3 are skipped"
exit 0

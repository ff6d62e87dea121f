#!/bin/sh
# Builds what a release ships into $DIST (default: dist): for each architecture an archive with the program, its licence, shell
# completions and manual pages, and a bill of materials; and the checksums of all of it. Called by make release.
# BIN=FILE packs a program that has been built already, for this machine alone.
set -eu
cd "$(dirname "$0")/../.."
version=${1:?usage: release.sh VERSION [GOTAGS]}
tags=${2:-duckdb_arrow}
dist=${DIST:-dist}
name=$(printf %s "$version" | tr '/+ ' '---')
host=$(go env GOHOSTARCH)
[ "$(go env GOHOSTOS)" = linux ] || { echo "release: archives are built on Linux" >&2; exit 1; }
# Files in archives have the time of the commit, so that the same commit gives the same archive.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

rm -rf "$dist"
mkdir -p "$dist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# compile ARCH FILE: the engine is C++, so another architecture needs its compiler.
compile() {
	cc= cxx=
	if [ "$1" != "$host" ]; then
		case $1 in
		amd64) triple=x86_64-linux-gnu ;;
		arm64) triple=aarch64-linux-gnu ;;
		esac
		cc=$triple-gcc cxx=$triple-g++
		if ! command -v "$cxx" >/dev/null 2>&1; then
			echo "release: linux/$1 is not built: there is no $cxx here (Debian's package g++-$triple has it)"
			return 1
		fi
	fi
	# GOFLAGS of make names a linker of this machine.
	CC=${cc:-${CC:-cc}} CXX=${cxx:-${CXX:-c++}} CGO_ENABLED=1 GOOS=linux GOARCH=$1 GOFLAGS=-buildvcs=false \
		go build -trimpath -tags "$tags" -ldflags "-s -w -X main.version=$version" -o "$2" ./cmd/cauce
}

native=${BIN:-$work/native}
[ -n "${BIN:-}" ] || compile "$host" "$native"
mkdir -p "$work/shared/completions" "$work/shared/man/man1"
"$native" completion bash >"$work/shared/completions/cauce.bash"
"$native" completion zsh >"$work/shared/completions/_cauce"
"$native" completion fish >"$work/shared/completions/cauce.fish"
"$native" completion powershell >"$work/shared/completions/cauce.ps1"
"$native" man --out "$work/shared/man/man1" >/dev/null
cp LICENSE README.md README.es.md CHANGELOG.md "$work/shared/"
cp serve/web/assets/lib/LICENSES.txt "$work/shared/LICENSES-pages.txt"

for arch in amd64 arm64; do
	dir=cauce_${name}_linux_$arch
	mkdir "$work/$dir"
	if [ "$arch" = "$host" ]; then
		cp "$native" "$work/$dir/cauce"
	elif [ -n "${BIN:-}" ] || ! compile "$arch" "$work/$dir/cauce"; then
		continue
	fi
	cp -R "$work/shared/." "$work/$dir/"
	chmod 755 "$work/$dir/cauce"
	GOFLAGS=-buildvcs=false go tool -modfile=tools/go.mod cyclonedx-gomod bin -json -version "$version" -output "$dist/$dir.cdx.json" "$work/$dir/cauce"
	tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$dir" | gzip -n9 >"$dist/$dir.tar.gz"
done
cd "$dist"
sha256sum -- * >SHA256SUMS
ls -l

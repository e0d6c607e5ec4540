#!/bin/sh
# Programs of Debian packages, each with a fixed piece of work: programs.sh DATA SCRATCH NAME... runs the same on the host and in the guest's root.
# "bench program" prints the time and the checksum of the output; openssl decides itself how much it does, so its own figures are printed too.
set -u
data=$1 scratch=$2
shift 2
cd "$data" || exit 1
export LC_ALL=C PYTHONHASHSEED=0

measure() {
  name=$1
  shift
  bench program "$name" "$scratch/bench.output" "$@"
}

speed() {
  measure "$@"
  sed -n "s/^+F/speed: $1 +F/p" "$scratch/bench.output"
}

for program in "$@"; do
  case $program in
    gzip) measure gzip /usr/bin/gzip -6 -n -c text ;;
    gunzip) measure gunzip /usr/bin/gzip -d -c text.gz ;;
    xz) measure xz /usr/bin/xz -T1 -1 -c text ;;
    unxz) measure unxz /usr/bin/xz -d -c text.xz ;;
    sha256sum) measure sha256sum /usr/bin/sha256sum large ;;
    gnu_sort) measure gnu_sort /usr/bin/sort --parallel=1 text ;;
    python3) measure python3 /usr/bin/python3 -S -s -B script.py ;;
    sqlite3) measure sqlite3 /usr/bin/sqlite3 :memory: '.read script.sql' ;;
    cc1) measure cc1 "$(cat cc1.path)" -quiet -fpreprocessed -O1 -o - source.i ;;
    openssl_rsa) speed openssl_rsa /usr/bin/openssl speed -mr -seconds 1 rsa2048 ;;
    openssl_sha256) speed openssl_sha256 /usr/bin/openssl speed -mr -seconds 1 -bytes 8192 -evp sha256 ;;
    *) echo "programs.sh: no program '$program'" >&2; exit 2 ;;
  esac
done
rm -f "$scratch/bench.output"

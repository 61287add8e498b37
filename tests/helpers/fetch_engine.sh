#!/usr/bin/env bash
# Bring the jars of Flink's job server for tests/test_flink.py, with Maven: fetch_flink.sh [FOLDER], about 150 MB.
#
# This is the newest release of the job server that Maven can resolve with all its dependencies. It runs on Java 17, and
# runs jobs of newer Python SDKs.
set -euo pipefail
folder=$(realpath -m "${1:-${FLINK_JARS:-$(dirname "$0")/../../.cache/flink}}")
mkdir -p "$folder"
pom=$(mktemp --suffix=.xml)
trap 'rm -f "$pom"' EXIT
cat >"$pom" <<'XML'
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>vitpipe</groupId>
  <artifactId>flink-job-server</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.beam</groupId>
      <artifactId>beam-runners-flink-1.19</artifactId>
      <version>2.62.0</version>
    </dependency>
  </dependencies>
</project>
XML
mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder"
echo "$(find "$folder" -name '*.jar' | wc -l) jars in $folder"

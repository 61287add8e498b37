#!/usr/bin/env bash
# Bring the jars of a Beam job server with its engine for tests/test_beam_engines.py, with Maven:
#
#     fetch_engine.sh flink|spark [FOLDER]
#
# Flink takes 150 MB, Spark 260 MB. These are the newest job servers that Maven can resolve with all their dependencies.
# They run on Java 17, and run jobs of newer Python SDKs.
set -euo pipefail
beam=2.62.0 spark=3.2.2
case "${1:-}" in
flink) artifacts=("org.apache.beam:beam-runners-flink-1.19:$beam") ;;
# The job server expects Spark from the cluster that it runs on.
spark) artifacts=("org.apache.beam:beam-runners-spark-3:$beam" "org.apache.spark:"{spark-core,spark-sql,spark-streaming}"_2.12:$spark") ;;
*)
    echo "usage: fetch_engine.sh flink|spark [FOLDER]" >&2
    exit 2
    ;;
esac
folder=$(realpath -m "${2:-$(dirname "$0")/../../.cache/$1}")
mkdir -p "$folder"
pom=$(mktemp --suffix=.xml)
trap 'rm -f "$pom"' EXIT
{
    echo "<project><modelVersion>4.0.0</modelVersion><groupId>vitpipe</groupId><artifactId>job-server</artifactId>"
    echo "<version>1</version><dependencies>"
    for artifact in "${artifacts[@]}"; do
        IFS=: read -r group name version <<<"$artifact"
        echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId><version>$version</version></dependency>"
    done
    echo "</dependencies></project>"
} >"$pom"
mvn --batch-mode --quiet --file "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$folder"
echo "$(find "$folder" -name '*.jar' | wc -l) jars in $folder"

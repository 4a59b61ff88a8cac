#!/bin/sh
# Teach a model the classes of a folder and classify an image, with curl (7.83 or newer) and tar alone.
#
#     sh examples/curl.sh FOLDER MODEL IMAGE
#
# The service is at ACCRETE_URL. If it asks for a key, put `header = "Authorization: Bearer KEY"` into ~/.curlrc.
set -eu
folder=$1 model=$2 image=$3
url=${ACCRETE_URL:-http://127.0.0.1:8000}

echo '== a model'
curl -fsS "$url/v1/models" -H 'Content-Type: application/json' \
    --data "{\"name\": \"$model\", \"image_size\": 16, \"recipe\": {\"preset\": \"quick\"}}"

printf '\n== an increment: the address comes at once, in the header Location\n'
increment=$(tar czf - -C "$folder" . | curl -fsS "$url/v1/models/$model/increments" \
    -H 'Content-Type: application/gzip' --data-binary @- -o /dev/null -w '%header{location}')
echo "$increment"

echo '== its events, until it ends'
curl -fsSN "$url$increment/events"

printf '\n== the version in service, and what it takes the image for\n'
curl -fsS "$url/v1/models/$model/current"
curl -fsS "$url/v1/models/$model/predictions?top_k=2" -H 'Content-Type: application/octet-stream' --data-binary "@$image"

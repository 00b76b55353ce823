# The image of pushy-server contains only the program and the certificates of the authorities
# that Debian trusts. It runs as an unprivileged user, and writes no files.
#
# We have not run this image.
#
#   docker build --build-arg VERSION=v0.1.0 -t pushy-server .
#   docker run --rm --read-only --cap-drop=ALL --security-opt=no-new-privileges --stop-timeout 20 \
#     -p 8123:8123 -e PUSHY_SECRET_KEY -v "$PWD/config.json:/etc/pushy/config.json:ro" pushy-server
#
# User 65532 must be able to read config.json and the files that it names. A shutdown may take
# drainDelay and drainTimeout, 0 s and 15 s, hence --stop-timeout. GET /healthz answers 200 while the server runs, and
# GET /readyz 503 while it shuts down. Use docker buildx build --platform for other platforms than the builder's own.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION
# Empty GOOS and GOARCH mean those of the builder. The workspace provides the other modules.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOFLAGS=-buildvcs=false \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /pushy-server ./cmd/pushy-server

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /pushy-server /pushy-server
USER 65532:65532
EXPOSE 8123
ENTRYPOINT ["/pushy-server"]
CMD ["/etc/pushy/config.json"]

# syntax=docker/dockerfile:1
# The demo agent, for tests and trials only. From the root of the repository:
#   docker build -f build/agent.Dockerfile --build-arg VERSION=$(git describe --tags --always) -t agent .
# Name the two base images by digest (--build-arg BUILDER=golang@sha256:... BASE=...@sha256:...) for a build that can be repeated.
ARG BUILDER=golang:1.26-bookworm
ARG BASE=gcr.io/distroless/static-debian12:nonroot

FROM --platform=$BUILDPLATFORM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY test/agent test/agent
ARG TARGETOS TARGETARCH
ARG VERSION=devel
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=${TARGETOS:-linux} GOARCH=${TARGETARCH} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/agent ./test/agent

FROM ${BASE}
LABEL org.opencontainers.image.source=https://github.com/isthmus-dev/isthmus \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/agent /agent
USER 65532:65532
ENTRYPOINT ["/agent"]

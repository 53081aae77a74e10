# syntax=docker/dockerfile:1
# The spoke's image: `spoke controller` and `spoke relay`. From the root of the repository:
#   docker build -f build/spoke.Dockerfile --build-arg VERSION=$(git describe --tags --always) -t spoke .
# Name the two base images by digest (--build-arg BUILDER=golang@sha256:... BASE=...@sha256:...) for a build that can be repeated.
ARG BUILDER=golang:1.26-bookworm
ARG BASE=gcr.io/distroless/static-debian12:nonroot

FROM --platform=$BUILDPLATFORM ${BUILDER} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY api api
COPY internal internal
COPY hub hub
COPY spoke spoke
COPY cmd cmd
ARG TARGETOS TARGETARCH
ARG VERSION=devel
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=${TARGETOS:-linux} GOARCH=${TARGETARCH} \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/spoke ./cmd/spoke

FROM ${BASE}
LABEL org.opencontainers.image.source=https://github.com/isthmus-dev/isthmus \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /out/spoke /spoke
USER 65532:65532
ENTRYPOINT ["/spoke"]

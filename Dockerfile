# modelgate in a small image: the program, ONNX Runtime beside it, and nothing else that isn't Debian's.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t modelgate .
#   docker run --rm -p 127.0.0.1:8000:8000 -p 127.0.0.1:8001:8001 -v modelgate:/var/lib/modelgate \
#     -e MLFLOW_TRACKING_URI=http://mlflow:5000 -e MODELGATE_INSECURE=true modelgate
#
# Inside a container the program has to listen on all addresses, and it refuses to do that in plain text unless it is told to:
# either mount certificates and set MODELGATE_TLS_CERT and MODELGATE_TLS_KEY, or, where the network is your own as above, set
# MODELGATE_INSECURE. The stages are all of one Debian release, so that the C library at run time is the one at build time.

FROM rust:1.95.0-slim-bookworm AS tokenizers
WORKDIR /src
COPY tools/build-tokenizers.sh tools/
COPY inference/text/hf/tokenizers inference/text/hf/tokenizers
RUN tools/build-tokenizers.sh

# The script takes the wheel whose sha256 is in the list, and the library out of it.
FROM python:3.12.11-slim-bookworm AS onnxruntime
WORKDIR /src
COPY tools/fetch-onnxruntime.sh tools/requirements.txt tools/
RUN tools/fetch-onnxruntime.sh && cp -RL .cache/onnxruntime/lib /out

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=tokenizers /src/.cache/lib/libmodelgate_tokenizers.a .cache/lib/
ARG VERSION=unknown
RUN CGO_ENABLED=1 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/modelgate ./cmd/modelgate \
 && install -d -m 0750 /out/data

FROM debian:12.12-slim
ARG VERSION=unknown
LABEL org.opencontainers.image.title="modelgate" \
      org.opencontainers.image.description="Serves text, video and fusion classifiers over gRPC and swaps in better versions from MLflow" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# Certificates for a registry behind https, the C++ library that ONNX Runtime is linked with, and what decodes clips. Debian's point releases only fix
# what is there, so their versions aren't pinned: a pinned one would be gone from the mirror with the next fix.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates ffmpeg libstdc++6 \
 && rm -rf /var/lib/apt/lists/*
# The library is looked for beside the program first.
COPY --from=build /out/modelgate /opt/modelgate/modelgate
COPY --from=onnxruntime /out/libonnxruntime.so /opt/modelgate/
COPY --from=onnxruntime /out/LICENSE /out/ThirdPartyNotices.txt /usr/share/doc/onnxruntime/
COPY LICENSE /usr/share/doc/modelgate/
# A number, so that Kubernetes can see that it isn't root. The folder's owner is what a new volume starts with.
COPY --from=build --chown=65532:65532 /out/data /var/lib/modelgate
USER 65532:65532
ENV PATH=/opt/modelgate:$PATH \
    HOME=/var/lib/modelgate \
    TMPDIR=/var/lib/modelgate \
    MODELGATE_DATA_DIR=/var/lib/modelgate \
    MODELGATE_GRPC_ADDR=0.0.0.0:8001 \
    MODELGATE_HTTP_ADDR=0.0.0.0:8000
VOLUME /var/lib/modelgate
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
# Whether it answers at all; readiness, which also needs a version that serves, is /readyz on port 8000. With TLS,
# MODELGATE_TLS_CA has to name certificates that sign one for 127.0.0.1, or the check be replaced.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["modelgate", "models", "--addr", "127.0.0.1:8001", "--timeout", "3s"]
ENTRYPOINT ["modelgate"]
CMD ["serve"]

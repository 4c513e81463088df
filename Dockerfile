# A small image: the binary and nothing else that runs.
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
COPY templates templates
RUN cargo build --release --locked

FROM debian:bookworm-slim
RUN useradd --system --create-home --home-dir /var/lib/connector connector
COPY --from=build /src/target/release/marketplace-connector /usr/local/bin/
USER connector
WORKDIR /var/lib/connector
# The database and the rescue folder: a volume that survives the container.
VOLUME /var/lib/connector/data
ENV LISTEN_ADDR=0.0.0.0:8080 OPS_LISTEN_ADDR=0.0.0.0:9464 LOG_FORMAT=json
EXPOSE 8080 9464
ENTRYPOINT ["marketplace-connector"]
CMD ["serve"]

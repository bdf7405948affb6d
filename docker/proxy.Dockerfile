# The proxy before the service. From the repository's root:
#   docker build -f docker/proxy.Dockerfile -t kizu-proxy:local .
ARG BASE=caddy:2.10-alpine

FROM ${BASE}
# The image's own binary may bind low ports, and so does not start where no capability may be had.
# A copy has none.
RUN cp /usr/bin/caddy /usr/local/bin/caddy \
    && install -d -o 10001 -g 10001 /state
COPY deploy/Caddyfile /etc/caddy/Caddyfile
# Its authority, certificates and their keys.
ENV XDG_DATA_HOME=/state \
    XDG_CONFIG_HOME=/tmp
VOLUME ["/state"]
USER 10001:10001
EXPOSE 8080 8443
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["wget", "--quiet", "--output-document=/dev/null", "http://127.0.0.1:8081/"]
CMD ["/usr/local/bin/caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]

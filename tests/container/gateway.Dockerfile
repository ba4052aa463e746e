# A stand-in for the official nginx image where only Debian's packages can be had: a version that resolves upstreams again.
ARG NGINX_IMAGE=nginx:stable-bookworm
FROM ${NGINX_IMAGE}
# The releases' OpenSSL packages share a file, and a mirror's index may be past its date.
RUN sed -i 's/bookworm/sid/g' /etc/apt/sources.list \
    && apt-get -o Acquire::Check-Valid-Until=false update -qq \
    && apt-get -o Dpkg::Options::=--force-overwrite install -y -qq --no-install-recommends nginx-light curl \
    && rm -rf /var/lib/apt/lists/*
